//! The examples of RFC 7541, and what it does not foresee: a beginning that was not seen.

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// The fields as `name: value`, `?` for what is unknown.
fn fields(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<String>, Broken> {
    let mut fields = Vec::new();
    let text = |part: Option<Vec<u8>>| match part {
        Some(part) => String::from_utf8(part).unwrap(),
        None => "?".to_owned(),
    };
    decoder.decode(block, &mut |field| {
        fields.push(format!("{}: {}", text(field.name), text(field.value)));
    })?;
    Ok(fields)
}

const REQUESTS: [&[&str]; 3] = [
    &[
        ":method: GET",
        ":scheme: http",
        ":path: /",
        ":authority: www.example.com",
    ],
    &[
        ":method: GET",
        ":scheme: http",
        ":path: /",
        ":authority: www.example.com",
        "cache-control: no-cache",
    ],
    &[
        ":method: GET",
        ":scheme: https",
        ":path: /index.html",
        ":authority: www.example.com",
        "custom-key: custom-value",
    ],
];

/// Appendixes C.3 (as they are) and C.4 (in the Huffman code).
#[test]
fn requests_of_the_rfc_are_decoded() {
    for blocks in [
        [
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        ],
        [
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ],
    ] {
        let mut decoder = Decoder::default();
        for (block, wanted) in blocks.iter().zip(REQUESTS) {
            assert_eq!(fields(&mut decoder, &hex(block)).unwrap(), wanted);
        }
        assert_eq!(decoder.size, 164, "the table size that the RFC gives");
    }
}

/// Appendix C.6: a table of 256 bytes, from which entries are evicted.
#[test]
fn responses_of_the_rfc_are_decoded_with_evictions() {
    let mut decoder = Decoder {
        most: 256,
        ..Decoder::default()
    };
    let first = "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 \
                 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3";
    let common = [
        "cache-control: private",
        "date: Mon, 21 Oct 2013 20:13:21 GMT",
        "location: https://www.example.com",
    ];
    let with = |status: &str| -> Vec<String> {
        let status = format!(":status: {status}");
        std::iter::once(status)
            .chain(common.map(str::to_owned))
            .collect()
    };
    assert_eq!(fields(&mut decoder, &hex(first)).unwrap(), with("302"));
    assert_eq!(
        fields(&mut decoder, &hex("4883 640e ffc1 c0bf")).unwrap(),
        with("307")
    );
    let third = "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab \
                 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f \
                 9587 3160 65c0 03ed 4ee5 b106 3d50 07";
    assert_eq!(
        fields(&mut decoder, &hex(third)).unwrap(),
        [
            ":status: 200",
            "cache-control: private",
            "date: Mon, 21 Oct 2013 20:13:22 GMT",
            "location: https://www.example.com",
            "content-encoding: gzip",
            "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
        ]
    );
    assert_eq!(decoder.size, 215);
}

/// The second request of C.3 alone, and after it the third: what the second entered is known.
#[test]
fn entries_from_before_the_capture_are_unknown_and_later_ones_are_not() {
    let mut decoder = Decoder::default();
    let second = fields(&mut decoder, &hex("8286 84be 5808 6e6f 2d63 6163 6865")).unwrap();
    assert_eq!(second[3..], ["?: ?", "cache-control: no-cache"]);
    let block = hex("8287 85bf be");
    let third = fields(&mut decoder, &block).unwrap();
    assert_eq!(third[3..], ["?: ?", "cache-control: no-cache"]);
}

#[test]
fn a_broken_block_leaves_nothing_to_refer_to() {
    for block in [
        "80",
        "41",
        "418c f1e3",
        "7fffff ffff ffff ffff 00",
        "40 81ff 00",
    ] {
        let mut decoder = Decoder::default();
        fields(
            &mut decoder,
            &hex("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d"),
        )
        .unwrap();
        assert_eq!(fields(&mut decoder, &hex(block)), Err(Broken), "{block}");
        assert_eq!(fields(&mut decoder, &hex("be")).unwrap(), ["?: ?"]);
    }
}

#[test]
fn a_table_stays_small_whatever_is_announced() {
    let mut decoder = Decoder::default();
    // 2^32 - 1 bytes.
    fields(&mut decoder, &hex("3f e0 ff ff ff 0f")).unwrap();
    for _ in 0..10_000 {
        let mut block = hex("40 01 61 7f 81 07");
        block.extend([b'v'; 1032 - 1]);
        block.truncate(6 + 127 + 0x81 - 0x80 + 7 * 128);
        fields(&mut decoder, &block).unwrap();
    }
    assert!(decoder.size <= MOST_SIZE);
    fields(&mut decoder, &hex("20")).unwrap();
    assert_eq!((decoder.size, decoder.entries.len()), (0, 0));
}
