//! Where a line may break without a space: between the characters of Chinese, Japanese and Korean text, but not before
//! closing nor after opening punctuation (JIS X 4051; GB/T 15834).

use unicode_width::UnicodeWidthChar;

/// Whether a line may end after the first character and begin with the second.
pub(super) fn may_break(last: char, next: char) -> bool {
    (is_wide(last) || is_wide(next)) && !begins_no_line(next) && !ends_no_line(last)
}

/// Whether a URL ends at this character: punctuation that no URL holds.
pub(super) fn ends_url(c: char) -> bool {
    is_wide(c) && !c.is_alphanumeric()
}

/// Characters without a form that mails use to fill the line of their preheader, and the mark of the byte order.
pub(super) const fn is_filler(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{34f}' | '\u{feff}' | '\u{2060}' | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{180e}'
    )
}

fn is_wide(c: char) -> bool {
    // No wide character comes before the jamo.
    c >= '\u{1100}' && c.width() == Some(2)
}

const fn begins_no_line(c: char) -> bool {
    matches!(
        c,
        ',' | '.'
            | '!'
            | '?'
            | ':'
            | ';'
            | ')'
            | ']'
            | '}'
            | '%'
            | '"'
            | '\''
            | '/'
            | '\u{b0}'
            | '’'
            | '”'
            | '…'
            | '‥'
            | '—'
            | '·'
            | '‰'
            | '℃'
            | '、'
            | '。'
            | '，'
            | '．'
            | '：'
            | '；'
            | '！'
            | '？'
            | '・'
            | '％'
            | '／'
            | '～'
            | '〜'
            | '－'
            | '）'
            | '］'
            | '｝'
            | '」'
            | '』'
            | '】'
            | '〕'
            | '〉'
            | '》'
            | '〗'
            | '〙'
            | '〞'
            | '〟'
            | '＂'
            | '＇'
            | '々'
            | '〻'
            | 'ー'
            | 'ゝ'
            | 'ゞ'
            | 'ヽ'
            | 'ヾ'
            | 'ぁ'
            | 'ぃ'
            | 'ぅ'
            | 'ぇ'
            | 'ぉ'
            | 'っ'
            | 'ゃ'
            | 'ゅ'
            | 'ょ'
            | 'ゎ'
            | 'ゕ'
            | 'ゖ'
            | 'ァ'
            | 'ィ'
            | 'ゥ'
            | 'ェ'
            | 'ォ'
            | 'ッ'
            | 'ャ'
            | 'ュ'
            | 'ョ'
            | 'ヮ'
            | 'ヵ'
            | 'ヶ'
            | '\u{3000}'
            | '\u{1f3fb}'..='\u{1f3ff}'
    )
}

const fn ends_no_line(c: char) -> bool {
    matches!(
        c,
        '(' | '['
            | '{'
            | '$'
            | '#'
            | '@'
            | '£'
            | '¥'
            | '€'
            | '‘'
            | '“'
            | '（'
            | '［'
            | '｛'
            | '「'
            | '『'
            | '【'
            | '〔'
            | '〈'
            | '《'
            | '〖'
            | '〘'
            | '〝'
            | '＄'
            | '￥'
            | '￡'
            | '＃'
            | '＠'
            | '\u{200d}'
            | '\u{a0}'
    )
}
