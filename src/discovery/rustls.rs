//! What of rustls is in a file: its version, and its functions by name.

use super::elf::Elf;
use std::ops::Range;

/// Longest name looked at: those of generic functions can have kilobytes, none of ours has.
const LONGEST_NAME: usize = 512;
/// Most bytes searched for the name of a source file.
const MAX_SEARCH: u64 = 256 << 20;
/// How the directory of the sources ends, which messages of a panic name.
const SOURCES: &[u8] = b"/rustls-0.";
const LONGEST_VERSION: usize = 24;

/// A function of `CommonState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `buffer_plaintext(&mut self, OutboundChunks, …) -> usize`, from 0.23 on.
    BufferPlaintext,
    /// `send_some_plaintext(&mut self, &[u8]) -> usize`, up to 0.22.
    SendSomePlaintext,
    /// `take_received_plaintext(&mut self, Payload)`
    TakeReceivedPlaintext,
    /// `<ExpectTraffic as State>::handle(self, &mut Context, Message)`, of which there are four: for
    /// clients and servers of TLS 1.2 and 1.3. It is only called through a table of methods.
    Handle12,
    Handle13,
    /// `start_outgoing_traffic(&mut self, …)`
    StartOutgoingTraffic,
    /// `drop_in_place::<CommonState>(*mut CommonState)`
    Drop,
}

/// A function that a symbol names. Compilers make several of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    pub method: Method,
    pub vaddr: u64,
    /// Bytes.
    pub size: u64,
}

impl Method {
    pub fn name(self) -> &'static str {
        match self {
            Method::BufferPlaintext => "buffer_plaintext",
            Method::SendSomePlaintext => "send_some_plaintext",
            Method::TakeReceivedPlaintext => "take_received_plaintext",
            Method::Handle12 | Method::Handle13 => "ExpectTraffic::handle",
            Method::StartOutgoingTraffic => "start_outgoing_traffic",
            Method::Drop => "drop_in_place<CommonState>",
        }
    }

    /// Of a mangled name, in the old way or the new one (RFC 2603).
    fn of(symbol: &str) -> Option<Method> {
        const TYPE: &str = "11CommonState";
        const METHODS: [(&str, Method); 4] = [
            ("16buffer_plaintext", Method::BufferPlaintext),
            ("19send_some_plaintext", Method::SendSomePlaintext),
            ("23take_received_plaintext", Method::TakeReceivedPlaintext),
            ("22start_outgoing_traffic", Method::StartOutgoingTraffic),
        ];
        if symbol.contains("drop_in_place") {
            let is_its = [
                "drop_in_place$LT$rustls..common_state..CommonState$GT$",
                "drop_in_place$LT$rustls..conn..CommonState$GT$",
            ]
            .iter()
            .any(|old| symbol.contains(old));
            return (is_its || is_new_drop(symbol)).then_some(Method::Drop);
        }
        if symbol.contains("ExpectTraffic") {
            return handle(symbol);
        }
        let (path, rest) = symbol.split_once(TYPE)?;
        let of_rustls = ["6rustls12common_state", "6rustls4conn"];
        if !of_rustls.iter().any(|module| path.contains(module)) {
            return None;
        }
        METHODS.iter().find_map(|(name, method)| {
            let rest = rest.strip_prefix(name)?;
            // A hash, nothing, or what a linker adds; not the name of a function inside.
            let ends = rest.is_empty() || rest.starts_with("17h") || rest.starts_with('.');
            ends.then_some(*method)
        })
    }
}

/// `_ZN…_$LT$rustls..client..tls12..ExpectTraffic$u20$as$u20$rustls..common_state..State$LT$…$GT$$GT$
/// 6handle17h…`, `_RNvX…_6rustls6client5tls12…13ExpectTrafficINt…5State…6handle`
fn handle(symbol: &str) -> Option<Method> {
    let old = ["client", "server"].iter().any(|side| {
        symbol.contains(&format!("_$LT$rustls..{side}..tls1"))
            && symbol.contains("..ExpectTraffic$u20$as$u20$rustls..")
            && symbol.contains("..State$LT$")
            && symbol.contains("$GT$6handle17h")
    });
    let tail = symbol.split('.').next().unwrap_or(symbol);
    let new = symbol.starts_with("_RNvX")
        && ["6rustls6client5tls1", "6rustls6server5tls1"]
            .iter()
            .any(|module| symbol.contains(module))
        && symbol.contains("13ExpectTrafficI")
        && symbol.contains("5State")
        && tail.ends_with("6handle");
    let is_old = symbol.contains("..tls12..") || symbol.contains("5tls12N");
    let method = if is_old {
        Method::Handle12
    } else {
        Method::Handle13
    };
    (old || new).then_some(method)
}

/// `_RINvNt…3ptr13drop_in_placeNtNtCs…_6rustls12common_state11CommonStateE…`
fn is_new_drop(symbol: &str) -> bool {
    let Some((_, of)) = symbol.split_once("13drop_in_place") else {
        return false;
    };
    let type_of = of.split_once("11CommonStateE").map(|(path, _)| path);
    type_of.is_some_and(|path| {
        path.starts_with("NtNt")
            && (path.ends_with("6rustls12common_state") || path.ends_with("6rustls4conn"))
    })
}

/// Its functions that symbols name, each address once.
pub fn functions(elf: &Elf<'_>) -> Vec<Named> {
    let mut found: Vec<Named> = elf
        .functions(LONGEST_NAME)
        .filter(|(name, ..)| name.contains("CommonState") || name.contains("ExpectTraffic"))
        .filter_map(|(name, vaddr, size)| {
            Some(Named {
                method: Method::of(name)?,
                vaddr,
                size,
            })
        })
        .collect();
    found.sort_by_key(|named| named.vaddr);
    found.dedup_by_key(|named| named.vaddr);
    found
}

/// Whether a symbol says that the function at `vaddr` is one of a `CommonState`, or on its way to
/// early data.
pub fn is_of_common_state(elf: &Elf<'_>, vaddr: u64) -> bool {
    elf.function_at(vaddr).is_some_and(|(name, _)| {
        let modules = ["6rustls12common_state", "6rustls4conn"];
        name.contains("11CommonState") && modules.iter().any(|module| name.contains(module))
    })
}

/// Where the texts are of panics that what encrypts a record has: one before 0.23, one from then on.
pub fn encrypters(elf: &Elf<'_>) -> Vec<Range<u64>> {
    const TEXTS: [&[u8]; 2] = [
        b"assertion failed: self.next_pre_encrypt_action() != PreEncryptAction::Refuse",
        b"assertion failed: !self.encrypt_exhausted()",
    ];
    const MOST: usize = 8;
    let mut found = Vec::new();
    for text in TEXTS {
        let mut budget = MAX_SEARCH;
        for loads in elf.constants() {
            elf.search(text, loads, u64::MAX, &mut budget, |at, _| -> Option<()> {
                found.push(at..at + 1);
                (found.len() >= MOST).then_some(())
            });
        }
    }
    found
}

/// Whether a panic names one of its source files, also where they were in no directory with a version.
pub fn is_inside(elf: &Elf<'_>) -> bool {
    /// In two parts: a program that looks for it does not have it.
    const DIR: &[u8] = b"/rustls";
    const FILE: &[u8] = b"/src/common_state.rs";
    let mut budget = MAX_SEARCH;
    let accept = |at: u64, _: &[u8]| {
        let dir = at.checked_sub(DIR.len() as u64)?;
        (elf.loaded(dir, DIR.len() as u64)? == DIR).then_some(())
    };
    version(elf).is_some()
        || elf.constants().any(|loads| {
            let found = elf.search(FILE, loads, u64::MAX, &mut budget, accept);
            found.is_some()
        })
}

/// The version, by the paths of its source files: `0.23.40`. Foreign.
pub fn version(elf: &Elf<'_>) -> Option<String> {
    let mut budget = MAX_SEARCH;
    let mut accept = |_, found: &[u8]| {
        let text = found.get(b"/rustls-".len()..)?;
        let text = text.get(..text.len().min(LONGEST_VERSION))?;
        let end = text.iter().position(|b| *b == b'/')?;
        let version = text.get(..end)?;
        let is_plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'+');
        // What merely looks for rustls, as this program does, has that text without a number.
        let is_number = version.get(2)?.is_ascii_digit();
        (is_number && version.iter().all(is_plain))
            .then(|| String::from_utf8_lossy(version).into_owned())
    };
    elf.constants()
        .find_map(|loads| elf.search(SOURCES, loads, u64::MAX, &mut budget, &mut accept))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_known_by_both_ways_to_mangle() {
        let of = Method::of;
        let old = "_ZN6rustls12common_state11CommonState16buffer_plaintext17h60a03956783711f1E";
        assert_eq!(of(old), Some(Method::BufferPlaintext));
        let linked =
            "_ZN6rustls4conn11CommonState19send_some_plaintext17h0123456789abcdefE.llvm.12";
        assert_eq!(of(linked), Some(Method::SendSomePlaintext));
        let new = "_RNvMs1_NtCsdQ5kFfv0bN_6rustls12common_stateNtB5_11CommonState\
                   23take_received_plaintext";
        assert_eq!(of(new), Some(Method::TakeReceivedPlaintext));
        let handle = "_ZN141_$LT$rustls..client..tls12..ExpectTraffic$u20$as$u20$rustls..\
                      common_state..State$LT$rustls..client..client_conn..ClientConnectionData\
                      $GT$$GT$6handle17hd2b3e61983d0bd2bE";
        assert_eq!(of(handle), Some(Method::Handle12));
        let handle = "_RNvXs1_NtNtCs2_6rustls6server5tls13NtB5_13ExpectTrafficINtNtB9_12common_state\
                      5StateNtNtB7_11server_conn20ServerConnectionDataE6handle";
        assert_eq!(of(handle), Some(Method::Handle13));
        let drop = "_ZN4core3ptr58drop_in_place$LT$rustls..common_state..CommonState$GT$17h1E";
        assert_eq!(of(drop), Some(Method::Drop));
        let drop = "_RINvNtCs1_4core3ptr13drop_in_placeNtNtCs2_6rustls12common_state\
                    11CommonStateEB6_";
        assert_eq!(of(drop), Some(Method::Drop));
    }

    #[test]
    fn what_is_inside_or_around_is_not_taken_for_it() {
        let of = Method::of;
        for other in [
            "_ZN6rustls6server11server_conn14EarlyDataState23take_received_plaintext17h1E",
            "_ZN6rustls12common_state11CommonState16buffer_plaintext28_$u7b$$u7b$closure17h1E",
            "_ZN5other12common_state11CommonState16buffer_plaintext17h1E",
            "_ZN4core3ptr80drop_in_place$LT$core..option..Option$LT$rustls..common_state..\
             CommonState$GT$$GT$17h1E",
            "_RINvNtCs1_4core3ptr13drop_in_placeINtNtCs2_4core6option6OptionNtNtCs2_6rustls\
             12common_state11CommonStateEEB6_",
            "_ZN141_$LT$rustls..client..tls12..ExpectTraffic$u20$as$u20$rustls..common_state..\
             State$LT$rustls..client..client_conn..ClientConnectionData$GT$$GT$10into_owned17h4E",
            "11CommonState",
            "",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
