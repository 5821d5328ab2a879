//! What expressions mean, and what is said of those that mean nothing.

use super::*;

fn uid_of(name: &str) -> Option<u32> {
    (name == "www-data").then_some(33)
}

fn tree(words: &str) -> Expr {
    parse(words, &uid_of).unwrap()
}

fn same(a: &str, b: &str) {
    assert_eq!(tree(a), tree(b), "{a} / {b}");
}

fn refused(words: &str, column: usize, message: &str) {
    let error = parse(words, &uid_of).unwrap_err();
    assert_eq!(
        (error.column, error.message.as_str()),
        (column, message),
        "{words}"
    );
}

#[test]
fn and_binds_tighter_than_or_and_not_tightest() {
    same("in or out and not pid 1", "in or (out and (not pid 1))");
    assert_ne!(tree("in or out and pid 1"), tree("(in or out) and pid 1"));
    assert_ne!(tree("not in and out"), tree("not (in and out)"));
}

#[test]
fn operators_have_words_signs_and_silence() {
    same("in and out or not pid 1", "in&&out||!pid 1");
    same("comm curl port 443 out", "comm curl and port 443 and out");
    same("not ! in", "in");
    same("not not not in", "not in");
}

#[test]
fn a_value_alone_repeats_the_last_test() {
    same("port 80 or 443", "port 80 or port 443");
    same(
        "src host 10.0.0.1 or 10.0.0.2",
        "src host 10.0.0.1 or src host 10.0.0.2",
    );
    same(
        "in and not port 80 and not 443",
        "in and not port 80 and not port 443",
    );
    refused("port 80 443", 9, "expected a test, not \"443\"");
}

#[test]
fn lists_and_ranges_of_numbers() {
    let ports = Numbers::new(vec![(80, 80), (443, 443), (8000, 8080)]);
    assert_eq!(
        tree("port 80,443,8000-8080"),
        Expr::Test(Test::Port(Side::Either, ports))
    );
    same("portrange 8000-8080", "port 8000-8080");
    same("uid www-data", "uid 33");
}

#[test]
fn src_and_dst_take_an_address_alone() {
    same("src 10.0.0.1", "src host 10.0.0.1");
    same("dst 10.0.0.0/8", "dst net 10.0.0.0/8");
    same("host [::1]", "host ::1");
    same("host ::ffff:10.0.0.1", "host 10.0.0.1");
    same("net ::ffff:10.0.0.0/104", "net 10.0.0.0/8");
}

#[test]
fn nothing_is_always_true() {
    assert_eq!(tree(""), Expr::All(vec![]));
    assert_eq!(tree(" \t\n"), Expr::All(vec![]));
}

#[test]
fn errors_say_where_and_what_was_expected() {
    refused(
        "prot 443",
        1,
        "unknown word \"prot\": did you mean \"port\"?",
    );
    refused("in and", 7, "expected a test, but nothing follows");
    refused("in and or out", 8, "expected a test, not \"or\"");
    refused(
        "port",
        5,
        "expected a port after \"port\", but nothing follows",
    );
    refused("port )", 6, "expected a port after \"port\", not \")\"");
    refused(
        "port http",
        6,
        "\"http\" in \"http\" is not a number from 0 to 65535",
    );
    refused(
        "port 80,70000",
        6,
        "\"70000\" in \"80,70000\" is not a number from 0 to 65535",
    );
    refused(
        "port 80,",
        6,
        "\"\" in \"80,\" is not a number from 0 to 65535",
    );
    refused(
        "port +80",
        6,
        "\"+80\" in \"+80\" is not a number from 0 to 65535",
    );
    refused("port 90-80", 6, "the range \"90-80\" ends before it begins");
    refused(
        "portrange 80",
        11,
        "expected a range of ports (N-M), not \"80\"",
    );
    refused(
        "host example.com",
        6,
        "\"example.com\" is not an IP address: names are not looked up",
    );
    refused(
        "host 10.0.0.0/8",
        6,
        "\"10.0.0.0/8\" is not an IP address: a block is \"net\"",
    );
    refused(
        "net 10.0.0.0",
        5,
        "\"10.0.0.0\" is not a block of addresses: expected ADDR/BITS",
    );
    refused(
        "net 10.0.0.0/33",
        5,
        "\"10.0.0.0/33\" needs 0 to 32 bits behind the \"/\"",
    );
    refused(
        "net ::/129",
        5,
        "\"::/129\" needs 0 to 128 bits behind the \"/\"",
    );
    refused(
        "src pid 1",
        5,
        "expected host, net or port after \"src\", not \"pid\"",
    );
    refused(
        "uid nobody-here",
        5,
        "no user \"nobody-here\" on this system",
    );
    refused(
        "comm and in",
        6,
        "expected a pattern for the command name after \"comm\", not \"and\" (quote it)",
    );
    refused("(in or out", 1, "this \"(\" has no \")\"");
    refused("in) or out", 3, "this \")\" has no \"(\"");
    refused("()", 2, "expected a test, not \")\"");
    refused("pid 1 == 2", 7, "expected another test, not \"==\"");
    refused("\"in\"", 1, "expected a test, not the string \"in\"");
}

#[test]
fn depth_is_limited_and_no_length_overflows_the_stack() {
    let nested = |depth| "(".repeat(depth) + "in" + &")".repeat(depth);
    assert_eq!(tree(&nested(MAX_DEPTH)), tree("in"));
    refused(
        &nested(MAX_DEPTH + 1),
        65,
        "more than 64 parentheses inside each other",
    );
    assert!(parse(&nested(100_000), &uid_of).is_err());
    assert!(parse(&"(".repeat(100_000), &uid_of).is_err());
    same(&("! ".repeat(100_001) + "in"), "not in");
    assert!(parse(&("in or ".repeat(100_000) + "in"), &uid_of).is_ok());
}

#[test]
fn every_truncation_is_an_error_or_a_filter() {
    let words = "not (src host 10.0.0.1 or net 2001:db8::/32) && portrange 1-2 \
                 uid www-data || comm \"a \\\"b\" and pid 7,9-12 ! in \
                     size > 1k and header[\"x\"] ~ /a\\/b/s or port in {1, 3..4, 5} time < 1.5s";
    assert!(parse(words, &uid_of).is_ok());
    for end in 0..words.len() {
        if let Err(error) = parse(&words[..end], &uid_of) {
            assert!(
                (1..=end + 1).contains(&error.column),
                "{}: {error}",
                &words[..end]
            );
        }
    }
}

#[test]
fn an_operator_makes_a_field_of_a_word() {
    assert_ne!(tree("port == 443"), tree("port 443"));
    same("port == 443", "port eq 443");
    same("port in {443}", "port = 443");
    same("comm contains", "comm \"contains\"");
    same("comm eq and in", "comm \"eq\" and in");
    same("path in", "path and in");
    same("path in and out", "path and in and out");
    same("http.method == GET", "method==\"GET\"");
    same("method ~ \"a|b\"", "method matches /a|b/");
    same("status lt 300", "status < 300");
    same(
        "status in {200 201, 500..599}",
        "status in {200,201,500..599}",
    );
}

#[test]
fn numbers_have_the_units_of_their_field() {
    same("size > 10k", "size > 10240");
    same("size > 1.5k", "size > 1536");
    same("size <= 1M", "size <= 1024K");
    same("time > 1500ms", "time > 1.5s");
    same("time > 2m", "time > 120s");
    same("time > 3us", "time > 3000ns");
    same("time > 3µs", "time > 0.003ms");
    same("tls.version == 0x0304", "tls.version == TLSv1.3");
    same("uid == www-data", "uid == 33");
    same("truncated == true", "truncated");
}

#[test]
fn comparisons_that_mean_nothing_say_why() {
    for (words, column, message) in [
        (
            "statsu >= 500",
            1,
            "unknown field \"statsu\": did you mean \"status\"?",
        ),
        (
            "http.request.method == GET",
            1,
            "unknown field \"http.request.method\": did you mean \"method\"?",
        ),
        (
            "in and blub contains x",
            8,
            "unknown field \"blub\": --help lists what there is",
        ),
        (
            "path contain x",
            6,
            "unknown word \"contain\": did you mean \"contains\"?",
        ),
        (
            "blub",
            1,
            "unknown word \"blub\": --help lists what there is",
        ),
        (
            "status >= fast",
            11,
            "\"fast\" is not a number from 0 to 999, as \"http.status\" is",
        ),
        (
            "status >=",
            10,
            "expected a number for \"http.status\" after \">=\", but nothing follows",
        ),
        (
            "status contains 5",
            8,
            "\"http.status\" is a number: expected ==, !=, <, <=, >, >= or in, not \"contains\"",
        ),
        (
            "method > GET",
            8,
            "\"http.method\" is text: expected ==, !=, in, contains or matches, not \">\"",
        ),
        (
            "proto == htp2",
            10,
            "\"proto\" is never \"htp2\": did you mean \"http2\"?",
        ),
        (
            "role == both",
            9,
            "\"conn.role\" is never \"both\": expected one of client, server",
        ),
        (
            "ip == example.com",
            7,
            "\"example.com\" is neither an address nor a block (ADDR/BITS): names are not looked up",
        ),
        (
            "time > 200",
            8,
            "\"200\" is not a time with its unit (200ms, 1.5s), as \"time\" is",
        ),
        (
            "size > 10x",
            8,
            "\"10x\" is not a number of bytes (300, 10k, 1M), as \"size\" is",
        ),
        (
            "port == 70000",
            9,
            "\"70000\" is not a number from 0 to 65535, as \"port\" is",
        ),
        (
            "tls.version == 1.4",
            16,
            "\"1.4\" is not a version of TLS (1.2), as \"tls.version\" is",
        ),
        (
            "body matches /(/",
            14,
            "this regular expression is none: unclosed group",
        ),
        (
            "body matches /a",
            14,
            "this regular expression has no \"/\" at its end",
        ),
        (
            "body matches /a/x",
            14,
            "unknown flag \"x\" behind the regular expression: expected i, m or s",
        ),
        (
            "path == and",
            9,
            "expected text for \"http.path\" after \"==\", not \"and\" (quote it)",
        ),
        (
            "http.header == x",
            13,
            "\"http.header\" needs a name: http.header[\"NAME\"]",
        ),
        (
            "status == 404 or 500",
            18,
            "expected a test, not \"500\": several values are http.status in {V, V}",
        ),
        (
            "status in 404",
            11,
            "expected \"{\" after \"in\": in {V, V..V} (quote it from the shell)",
        ),
        (
            "port in 404",
            9,
            "expected \"{\" after \"in\": in {V, V..V} (quote it from the shell)",
        ),
        ("status in {404", 11, "this \"{\" has no \"}\""),
        ("status in {404,", 11, "this \"{\" has no \"}\""),
        (
            "status in {}",
            12,
            "expected a number for \"http.status\" after \"{\", not \"}\"",
        ),
        (
            "status in {404..}",
            17,
            "expected a number for \"http.status\" after \"..\", not \"}\"",
        ),
        (
            "status in {500..400}",
            12,
            "this range ends before it begins",
        ),
        (
            "method in {GET..POST}",
            15,
            "expected \",\" or \"}\", not \"..\"",
        ),
        (
            "http == 2",
            6,
            "\"http\" is a word and no field: expected another test, not \"==\"",
        ),
        (
            "uid == nobody-here",
            8,
            "no user \"nobody-here\" on this system",
        ),
    ] {
        refused(words, column, message);
    }
}

#[test]
fn a_hostile_regular_expression_is_refused_or_harmless() {
    refused(
        "body ~ \"(a{1000}){1000}\"",
        8,
        "this regular expression is none: it is too large",
    );
    assert!(parse(&format!("body ~ \"{}\"", "(".repeat(100_000)), &uid_of).is_err());
}
