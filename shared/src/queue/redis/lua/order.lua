-- Part of the operations that people order on single jobs.

-- {'done' | 'conflict' | 'full' | 'unknown', status before, {record}, {its batch}}
local function answer(word, job)
  flush()
  return { word, job and job.state or '', { job and record(job.id) }, shown_batches }
end
