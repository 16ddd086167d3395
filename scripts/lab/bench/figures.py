"""The name, the title and the format of each figure. What it means stands in `scripts/bench`."""

FIGURES = {  # name: (title, format)
    "accept": ("accept, requests/s", ",.0f"),
    "accept_p99_ms": ("— p99 at that rate, ms", ".1f"),
    "accept_cpu_api": ("— CPU s per 1,000: API", ".4f"),
    "accept_cpu_redis": ("— CPU s per 1,000: Redis", ".4f"),
    "drain": ("drain a filled queue, mails/s", ",.0f"),
    "drain_cpu_worker": ("— CPU s per 1,000: worker", ".4f"),
    "drain_cpu_redis": ("— CPU s per 1,000: Redis", ".4f"),
    "drain_cpu_sink": ("— CPU s per 1,000: sink (not the subject's)", ".4f"),
    "drain_sink_load": ("— sink's share of a core, %", ".0f"),
    "both": ("both at once, mails/s", ",.0f"),
    "both_accept": ("— accepted meanwhile, requests/s", ",.0f"),
    "both_cpu_all": ("— CPU s per 1,000: API + worker + Redis", ".4f"),
    "both_cpu_api": ("— CPU s per 1,000: API", ".4f"),
    "both_cpu_worker": ("— CPU s per 1,000: worker", ".4f"),
    "both_cpu_redis": ("— CPU s per 1,000: Redis", ".4f"),
    "both_cpu_sink": ("— CPU s per 1,000: sink (not the subject's)", ".4f"),
    "latency_p50_ms": ("latency at 200/s, p50 ms", ".2f"),
    "latency_p99_ms": ("latency at 200/s, p99 ms", ".2f"),
    "latency_max_ms": ("latency at 200/s, max ms", ".1f"),
    "latency_cpu_all": ("— CPU s per 1,000: API + worker + Redis", ".4f"),
    "batch_ms": ("1,000 recipients in one request, ms to the last", ",.0f"),
    "wire_20": ("drain over 20 ms, mails/s per connection", ".1f"),
    "wire_20_connections": ("— connections opened", ",.0f"),
    "wire_100": ("drain over 100 ms, mails/s per connection", ".1f"),
    "wire_100_connections": ("— connections opened", ",.0f"),
    "queued_bytes": ("bytes per queued job", ",.0f"),
    "idle_mib": ("API memory at the start, MiB", ",.0f"),
    "api_mib": ("API memory after both, MiB", ",.0f"),
    "worker_mib": ("worker memory after both, MiB", ",.0f"),
    "connections": ("SMTP connections open at once, drain", ",.0f"),
    "duplicates": ("mails sent twice", ",.0f"),
    "floor_http": ("HTTP route that only parses, requests/s", ",.0f"),
    "floor_http_cpu": ("— CPU s per 1,000: route", ".4f"),
    "floor_redis_1": ("stream life of a job, 64 loops, jobs/s", ",.0f"),
    "floor_redis_1_cpu": ("— CPU s per 1,000: Redis", ".4f"),
    "floor_redis_64": ("stream life of a job, batches of 64, jobs/s", ",.0f"),
    "floor_redis_64_cpu": ("— CPU s per 1,000: Redis", ".4f"),
    "floor_smtp_sink": ("smtp-source to smtp-sink, mails/s", ",.0f"),
    "floor_sink": ("smtp-source to the sink used here, mails/s", ",.0f"),
    "wire_20_trip_ms": ("a command and its answer over the 20 ms wire, ms", ".1f"),
    "wire_100_trip_ms": ("a command and its answer over the 100 ms wire, ms", ".1f"),
    "steal_pct": ("CPU time taken by other machines, %", ".1f"),
    "others_pct": ("CPU time taken by other programs, %", ".1f"),
    "load_before": ("load average before", ".1f"),
}

GROWTH = {  # of one depth and number of workers
    "growth_drain": ("drain, mails/s", ",.0f"),
    "growth_drain_worker_us": ("worker, µs a mail", ".1f"),
    "growth_drain_api_us": ("API and worker, µs a mail", ".1f"),
    "growth_drain_redis_us": ("Redis, µs a mail", ".1f"),
    "growth_worker_mib": ("the largest worker, MiB", ".1f"),
}
DEPTH = {  # of one depth
    "growth_bytes": ("bytes per job", ",.0f"),
    "growth_fill": ("filled, jobs/s", ",.0f"),
    "growth_fill_api_us": ("API, µs a job filled in", ".1f"),
    "growth_fill_redis_us": ("Redis, µs a job filled in", ".1f"),
    "growth_accept_api_us": ("API, µs a single request", ".1f"),
    "growth_accept_redis_us": ("Redis, µs a single request", ".1f"),
    "growth_api_mib": ("API memory at the end, MiB", ",.0f"),
}

ALL = FIGURES | GROWTH | DEPTH

FLOOR_OF = {"accept": "floor_http", "drain": "floor_smtp_sink"}  # what bounds it, among the floor's figures
BETTER_MORE = ("accept", "drain", "both", "wire_20", "wire_100")
BETTER_LESS = ("both_cpu_all", "latency_p50_ms", "latency_p99_ms", "batch_ms", "queued_bytes")
STANDALONE = {"both_cpu_all": "CPU s per 1,000 mails, both at once: API + worker + Redis"}


def title(figure):
    return ALL[figure][0] if figure in ALL else figure


def written(figure, value):
    return format(value, ALL[figure][1] if figure in ALL else ",.1f")
