use proptest::prelude::*;
use unicode_width::UnicodeWidthStr;

use super::*;

/// Each document and its text, without the line end of the last.
fn assert_texts(cases: &[(&str, &str)]) {
    for (html, text) in cases {
        let expected = if text.is_empty() { String::new() } else { format!("{text}\n") };
        assert_eq!(from_html(html), expected, "{html}");
    }
}

#[test]
fn white_space_is_one_space_within_lines_and_none_at_their_ends() {
    assert_texts(&[
        ("", ""),
        (" \n ", ""),
        ("a  \n\t b", "a b"),
        (" <p> a </p> ", "a"),
        ("a <b> b</b> c", "a b c"),
        ("a<b>b </b>c<i>d</i>", "ab cd"),
        ("<div>a<span> </span></div> <div> b</div>", "a\nb"),
        ("a&nbsp;b&nbsp; c", "a b c"),
        ("<p>a</p><p>&nbsp;</p><p>b</p>", "a\n\nb"),
        ("&nbsp;&nbsp;a&nbsp;", "a"),
        ("<p>　　您好</p>", "　　您好"),
        ("a&shy;b&#8203;c&zwj;&#xfeff;", "abc\u{200d}"),
        ("a\u{7}\u{0}b&#1;\u{85}", "ab"),
    ]);
}

#[test]
fn characters_are_decoded_once() {
    assert_texts(&[
        ("&lt;b&gt; &amp;amp; &eacute; &#x4e2d; &copy", "<b> &amp; é 中 ©"),
        ("a < b & c", "a < b & c"),
    ]);
}

#[test]
fn blocks_begin_lines_and_paragraphs_have_blank_lines() {
    assert_texts(&[
        ("a<div>b</div>c", "a\nb\nc"),
        ("<p>a<p>b", "a\n\nb"),
        ("<h1>a</h1>b", "a\n\nb"),
        ("a<br>b<br/>c</br>d", "a\nb\nc\nd"),
        ("a<br><br><br><br>b", "a\n\nb"),
        ("<div>a<br></div><div><br></div><div>b</div>", "a\n\nb"),
        ("a</p>b", "a\n\nb"),
        ("<p>a<div>b</div>", "a\n\nb"),
        ("<div><div><p>a</p></div></div><div>b", "a\n\nb"),
        ("<body><p>a</body></html> b", "a b"),
        ("<dl><dt>a<dd>b<dt>c<dd>d</dl>", "a\n    b\nc\n    d"),
    ]);
    let rule = "-".repeat(76);
    assert_eq!(from_html("a<hr>b"), format!("a\n{rule}\nb\n"));
}

#[test]
fn what_is_not_shown_is_left_out() {
    assert_texts(&[
        ("<head><title>t</title><style>p > a {}</style></head><body>b", "b"),
        ("<script>if (a < b) '<p>'</script>a<noscript><p>n</p></noscript><template><p>t</template>b", "ab"),
        ("a<!-- <p>x</p> -->b<!--[if mso]><p>m</p><![endif]-->c<![if !mso]>d<![endif]>", "abcd"),
        ("<div style=\"color:red;DISPLAY : none !important\">x<div>y</div></div>a", "a"),
        ("<p hidden>x<p>a", "a"),
        ("<div style='display:none'><p>x<ul><li>y</div>a", "a"),
        ("<span style='visibility:hidden'>x<span>y</span></span>a", "a"),
        ("<div style='max-height:0px;overflow:hidden'>x</div>a", "a"),
        ("<div style='max-height:0.5em;overflow:hidden'>x</div>", "x"),
        ("<table><tr><td style='display:none'>x<td>a</table>", "a"),
        ("<img alt=x hidden><br hidden>a<svg><text>x</text></svg>b", "ab"),
        ("<div style='display:block'>a</div>", "a"),
        ("<title>x", ""),
    ]);
}

#[test]
fn lists_hang_from_their_markers() {
    assert_texts(&[
        ("<ul><li>a<li>b</ul>c", "* a\n* b\n\nc"),
        ("x<ol start=9><li>a<li>b<li value=20>c<li>d</ol>", "x\n\n9. a\n10. b\n20. c\n21. d"),
        ("<ul><li>a<ul><li>b</ul>c<li>d</ul>", "* a\n  * b\n  c\n* d"),
        ("<ol><li><p>a</p><p>b</p></li></ol>", "1. a\n\n   b"),
        ("<ul><li><ul><li>a</ul></ul>", "* * a"),
        ("<ul><li></li><li>a</ul>", "* a"),
        ("<li>a", "* a"),
    ]);
    let item = format!("<ol><li>{}</ol>", "word ".repeat(20));
    assert_eq!(from_html(&item), format!("1. {}\n   {}\n", ["word"; 14].join(" "), ["word"; 6].join(" ")));
}

#[test]
fn quotes_are_marked_on_every_line() {
    assert_texts(&[
        ("a<blockquote><p>b<p>c</blockquote>d", "a\n\n> b\n>\n> c\n\nd"),
        ("<blockquote>a<blockquote>b</blockquote>c</blockquote>", "> a\n>\n> > b\n>\n> c"),
        ("<ul><li>a<blockquote>b</blockquote></ul>", "* a\n\n  > b"),
    ]);
    assert!(from_html(&"<blockquote>a".repeat(1000)).lines().all(|line| line.len() <= 76));
}

#[test]
fn preformatted_text_keeps_its_white_space() {
    assert_texts(&[
        ("<pre>\n a  b\n\n\n\tc \n</pre>d", " a  b\n\n\n        c\n\nd"),
        ("<pre>a <b>b</b>  c</pre>", "a b  c"),
        ("<blockquote><pre>a\n  b</pre></blockquote>", "> a\n>   b"),
        ("<textarea>a\n<b></textarea>", "a\n<b>"),
    ]);
    let long = "ab ".repeat(50);
    assert_eq!(from_html(&format!("<pre>{long}</pre>")), format!("{}\n", long.trim_end()));
}

#[test]
fn cells_of_a_row_share_a_line_where_they_hold_no_blocks() {
    assert_texts(&[
        ("<table><tr><td>a</td><td>b</td></tr><tr><td>c<td>d</table>", "a  b\nc  d"),
        ("<table>\n<tr>\n<td>a</td>\n<td></td>\n<td>b</td></tr></table>", "a  b"),
        ("<table><tr><th>a<th>b<tr><td>1<td><td>3</table>", "a | b\n1 | | 3"),
        ("<table border=1><tr><td>a<td>b</table><table border=0><tr><td>c<td>d</table>", "a | b\nc  d"),
        ("<table><tr><td><p>a</p></td><td><div>b</div></td></tr></table>c", "a\n\nb\nc"),
        ("<table><tr><td><table><tr><td>a<td>b</table><td>c</table>d", "a  b\nc\nd"),
        ("<table><tr><td>a</div>b</table>", "ab"),
        ("<div><table><tr><td>a<ul><li>b<td>c</table>", "a\n\n* b\n\nc"),
    ]);
}

#[test]
fn links_have_footnotes_where_they_say_more_than_the_text() {
    assert_texts(&[
        ("<a href=' http://a.b/c d\n'>x</a>.", "[x][1].\n\n[1]: http://a.b/c%20d"),
        (
            "<a href=http://a>x</a><a href=http://b>y</a> <a href=http://a><b>z</b> </a>w",
            "[x][1][y][2] [z][1] w\n\n[1]: http://a\n[2]: http://b",
        ),
        (
            "<a href=https://a.b/>https://a.b</a> <a href='mailto:a@b.c'>a@b.c</a> (<a href=tel:+1>+1</a>)",
            "https://a.b a@b.c (+1)",
        ),
        ("<a href=mailto:a@b.c>write</a>", "[write][1]\n\n[1]: mailto:a@b.c"),
        (
            "<a href='javascript:alert(1)'>a</a> <a href=#b>b</a> <a href=/c>c</a> <a>d</a> <a href=https:>e</a>",
            "a b c d e",
        ),
        ("<a href=http://a></a><a href=http://b><img></a><p>a", "a"),
        ("<a href=http://a><img alt=Logo></a>", "[Logo][1]\n\n[1]: http://a"),
        ("<a href=http://a><div>x</div></a>y", "[x][1]\ny\n\n[1]: http://a"),
        ("<a href=http://a><div><p>x</a>y</div>z", "[x][1]y\n\nz\n\n[1]: http://a"),
        ("<a href=http://a>x<a href=http://b>y", "[x][1][y][2]\n\n[1]: http://a\n[2]: http://b"),
        ("<div><a href=http://a>x</div>y", "[x][1]\ny\n\n[1]: http://a"),
        ("a<img alt='b c'>d<img alt=''>e", "a b c de"),
    ]);
}

#[test]
fn lines_break_at_spaces_and_between_wide_characters() {
    let words = from_html(&"word ".repeat(40));
    assert_eq!(words.lines().map(str::len).collect::<Vec<_>>(), [74, 74, 49]);
    let url = format!("https://example.com/{}", "x".repeat(100));
    assert_eq!(from_html(&format!("see {url} now")), format!("see\n{url}\nnow\n"));
    for count in 35..40 {
        let text = from_html(&format!("{}，他说：“好。”（完）", "中".repeat(count)));
        for line in text.lines() {
            assert!(line.width() <= 76 && !line.starts_with(['，', '：', '。', '”', '）']), "{text}");
            assert!(!line.ends_with(['“', '（']), "{text}");
        }
    }
    // A URL ends at the punctuation that it cannot hold, not at a character that it can.
    let text = from_html(&format!("{}https://例子.cn/订单，请查看", "中".repeat(30)));
    assert_eq!(text, format!("{}\nhttps://例子.cn/订单，请查看\n", "中".repeat(30)));
}

#[test]
fn mail_of_nested_tables_reads_from_top_to_bottom() {
    let html = r##"<!DOCTYPE html><html><head><meta charset="utf-8"><title>Receipt</title>
<style>@media (max-width:600px) { .m > td { display:block } }</style></head>
<body style="margin:0"><div style="display:none;font-size:1px;max-height:0;overflow:hidden">Paid in full&nbsp;&zwnj;&nbsp;&zwnj;</div>
<!--[if mso]><table><tr><td><![endif]-->
<table role="presentation" width="100%" cellpadding="0" cellspacing="0" border="0"><tr><td align="center">
  <table role="presentation" width="600"><tr><td><a href="https://shop.example.com/"><img src="l.png" alt="Shop"></a></td></tr>
    <tr><td style="padding:24px"><h1>Thank you, Wei</h1>
      <p>Your order <b>#1042</b> is on its
         way. Track it <a href="https://shop.example.com/t/1042?a=1&amp;b=2">here</a>.</p>
      <table width="100%"><thead><tr><th align="left">Item</th><th>Qty</th><th>Price</th></tr></thead>
        <tbody><tr><td>Coffee cup</td><td>2</td><td>$24.00</td></tr>
        <tr><td>Filter</td><td>1</td><td>$6.50</td></tr></tbody></table>
      <table><tr><td>Total:</td><td><strong>$30.50</strong></td></tr></table>
    </td></tr>
    <tr><td><hr><p style="font-size:12px">Questions? <a href="mailto:help@example.com">help@example.com</a><br>
      <a href="https://shop.example.com/">Shop</a> &middot; <a href="#top">Top</a></p></td></tr></table>
</td></tr></table><img src="https://t.example.com/o.gif" width="1" height="1" alt=""></body></html>"##;
    let text = "[Shop][1]\n\nThank you, Wei\n\n\
        Your order #1042 is on its way. Track it [here][2].\n\n\
        Item | Qty | Price\nCoffee cup | 2 | $24.00\nFilter | 1 | $6.50\nTotal:  $30.50\n\
        ----------------------------------------------------------------------------\n\n\
        Questions? help@example.com\n[Shop][1] · Top\n\n\
        [1]: https://shop.example.com/\n[2]: https://shop.example.com/t/1042?a=1&b=2";
    assert_texts(&[(html, text)]);
}

#[test]
fn chinese_notice_reads_as_written() {
    let html = "<div style='font-family:微软雅黑'><p>尊敬的<b>王伟</b>：</p>\
        <p>　　您的订单（编号：<a href='https://example.com/订单'>20261124</a>）已发货，预计三天内送达，请保持电话畅通。如有疑问，请致电&nbsp;400-800-1234，或访问https://example.com/帮助。</p>\
        <ol><li>请当面验收<li>七日内可退换</ol><p style='text-align:right'>某某公司<br>2026年11月24日</p></div>";
    let text = "尊敬的王伟：\n\n\u{3000}\u{3000}您的订单（编号：[20261124][1]）已发货，预计三天内送达，请保持电话畅通。\n\
        如有疑问，请致电 400-800-1234，或访问https://example.com/帮助。\n\n\
        1. 请当面验收\n2. 七日内可退换\n\n某某公司\n2026年11月24日\n\n[1]: https://example.com/订单";
    assert_texts(&[(html, text)]);
}

#[test]
fn newsletter_keeps_its_lists_pictures_and_links() {
    let html = "<center><h2>News</h2><ul style='padding:0'><li><img alt='New' src=n.png> Cups &mdash; <a href='https://e.com/c'>see\n them</a></li>\
        <li>Plates<ol><li>blue<li>white</ol></ul><div>Unsubscribe: <a href='https://e.com/u?id=1'>https://e.com/u?id=1</a></div></center>";
    let text = "News\n\n* New Cups — [see them][1]\n* Plates\n  1. blue\n  2. white\n\n\
        Unsubscribe: https://e.com/u?id=1\n\n[1]: https://e.com/c";
    assert_texts(&[(html, text)]);
}

/// What must hold of any text.
fn assert_sound(html: &str, text: &str) {
    assert!(text.is_empty() || text.ends_with('\n') && !text.ends_with("\n\n"));
    for line in text.lines() {
        assert!(!line.ends_with(' ') && !line.contains(char::is_control), "{line:?}");
    }
    // The dearest are a rule (4 bytes), and a line in the deepest indent.
    assert!(text.len() <= 100 * html.len().max(1), "{} from {}", text.len(), html.len());
}

#[test]
fn hostile_html_takes_no_more_than_its_size() {
    let links: Vec<String> = (0..20_000).map(|n| format!("<a href=http://{n}>x</a>")).collect();
    let tabs = format!("<pre>{}", "\t".repeat(300_000));
    for html in [
        "<b>".repeat(100_000),
        "<div>".repeat(100_000),
        "</div>".repeat(20_000),
        format!("{}{}", "<div>".repeat(300), "</section></span>".repeat(20_000)),
        "<div hidden><span>".repeat(20_000),
        "<table><tr><td>x".repeat(20_000),
        "<ol><li>x".repeat(20_000),
        "<blockquote><br>x".repeat(20_000),
        "x".repeat(1_000_000),
        "中".repeat(100_000),
        "，".repeat(100_000),
        "http://中".repeat(100_000),
        "&".repeat(1_000_000),
        "&amp".repeat(100_000),
        "&nbsp;".repeat(100_000),
        "x&nbsp;".repeat(50_000),
        "<b".repeat(300_000),
        "<a b='".repeat(100_000),
        "<a href=http://a>http://a</a>".repeat(20_000),
        "<hr>".repeat(20_000),
        "<!--".repeat(300_000),
        "<td>x".repeat(100_000),
        links.concat(),
        tabs,
    ] {
        assert_sound(&html, &from_html(&html));
    }
}

/// Simple HTML, and its words.
fn simple() -> impl Strategy<Value = (String, Vec<String>)> {
    let tag = prop::sample::select(vec![
        "p",
        "div",
        "b",
        "span",
        "h2",
        "ul",
        "ol",
        "li",
        "blockquote",
        "table",
        "tr",
        "td",
        "th",
        "pre",
        "dd",
        "br",
        "hr",
        "a",
        "section",
        "/p",
        "/div",
        "/b",
        "/ul",
        "/li",
        "/blockquote",
        "/table",
        "/td",
        "/tr",
        "/pre",
        "/a",
        "/section",
        "a href=https://e.com/x",
        "img alt=''",
    ]);
    let piece = prop_oneof![
        tag.prop_map(|tag| (format!("<{tag}>"), None)),
        "[a-z]{1,12}".prop_map(|word| (format!(" {word} "), Some(word))),
    ];
    prop::collection::vec(piece, 0..80).prop_map(|pieces| {
        let words = pieces.iter().filter_map(|(_, word)| word.clone()).collect();
        (pieces.into_iter().map(|(html, _)| html).collect(), words)
    })
}

proptest! {
    #[test]
    fn any_bytes_give_sound_text(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let html = String::from_utf8_lossy(&bytes);
        assert_sound(&html, &from_html(&html));
    }

    #[test]
    fn any_tags_give_sound_text(
        html in "(<(/?(p|div|a href=http://x|a|b hidden|pre|td|tr|table|li|ol|ul|blockquote|br|hr|title|script|img alt=x|dd)>?)|[ a中，\n\t&;\u{a0}\u{3000}]|&nbsp;){0,80}",
    ) {
        assert_sound(&html, &from_html(&html));
    }

    #[test]
    fn every_word_is_shown_in_its_order((html, words) in simple()) {
        let text = from_html(&html);
        let body = text.split("\n[1]: ").next().unwrap_or_default();
        let shown: Vec<&str> = body.split(|c: char| !c.is_ascii_lowercase()).filter(|word| !word.is_empty()).collect();
        prop_assert_eq!(shown, words);
        for line in body.lines().filter(|_| !html.contains("<pre>")) {
            prop_assert!(line.len() <= 76, "{}", line);
        }
    }
}
