//! The one table of names that an expression may contain.

use crate::event::Flavor;
use crate::proto::Protocol;

/// A word that an expression may contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Host,
    Net,
    Port,
    Portrange,
    Src,
    Dst,
    Pid,
    Uid,
    Comm,
    In,
    Out,
    Tls,
    Http,
    Request,
    Response,
    Unanswered,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub word: Word,
    pub name: &'static str,
    /// What follows the word, for people.
    pub argument: &'static str,
    pub doc: &'static str,
}

/// Every word but the operators, the fields and the names of protocols, in the order of the manual.
pub const WORDS: &[Entry] = &[
    Entry {
        word: Word::Host,
        name: "host",
        argument: "ADDR",
        doc: "one end has this IPv4 or IPv6 address",
    },
    Entry {
        word: Word::Net,
        name: "net",
        argument: "ADDR/BITS",
        doc: "one end has an address in this block",
    },
    Entry {
        word: Word::Port,
        name: "port",
        argument: "N[,N|N-M]...",
        doc: "one end has one of these ports",
    },
    Entry {
        word: Word::Portrange,
        name: "portrange",
        argument: "N-M",
        doc: "the same as port N-M",
    },
    Entry {
        word: Word::Src,
        name: "src",
        argument: "host|net|port ...",
        doc: "the same of the sender only; src ADDR is short for src host ADDR",
    },
    Entry {
        word: Word::Dst,
        name: "dst",
        argument: "host|net|port ...",
        doc: "the same of the receiver only",
    },
    Entry {
        word: Word::Pid,
        name: "pid",
        argument: "N[,N|N-M]...",
        doc: "the process is one of these",
    },
    Entry {
        word: Word::Uid,
        name: "uid",
        argument: "N[,N|N-M]...|NAME",
        doc: "the process belongs to this user",
    },
    Entry {
        word: Word::Comm,
        name: "comm",
        argument: "PATTERN",
        doc: "the command name matches: * any run, ? any character, [a-z] [!a-z] a set",
    },
    Entry {
        word: Word::In,
        name: "in",
        argument: "",
        doc: "read by the program",
    },
    Entry {
        word: Word::Out,
        name: "out",
        argument: "",
        doc: "written by the program",
    },
    Entry {
        word: Word::Tls,
        name: "tls",
        argument: "",
        doc: "always true: whatever is captured was inside TLS",
    },
    Entry {
        word: Word::Http,
        name: "http",
        argument: "",
        doc: "a message of HTTP of any version; gRPC too",
    },
    Entry {
        word: Word::Request,
        name: "request",
        argument: "",
        doc: "a message that asks for an answer",
    },
    Entry {
        word: Word::Response,
        name: "response",
        argument: "",
        doc: "a message that is the answer",
    },
    Entry {
        word: Word::Unanswered,
        name: "unanswered",
        argument: "",
        doc: "the line of a request that got no response",
    },
];

/// What values a field has, which decides what it may be compared with.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Any bytes.
    Text,
    /// Likewise, where upper and lower case are the same.
    Name,
    /// One of these names.
    Listed(fn() -> Vec<&'static str>),
    Number,
    /// A number of bytes.
    Size,
    Time,
    /// A user: a number, or a name of this system.
    User,
    /// A version of TLS.
    Version,
    Address,
    /// True or false.
    Flag,
}

/// What must be looked at for its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Of {
    /// The process, which it is the same for.
    Proc,
    /// The connection, and the direction.
    Conn,
    /// A read or write, or a message.
    Piece,
    Message,
    /// A message with its body.
    Body,
}

/// A field's row.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub field: Field,
    /// As in JSON.
    pub name: &'static str,
    /// Shorter and other names.
    pub also: &'static [&'static str],
    pub kind: Kind,
    pub of: Of,
    pub doc: &'static str,
}

/// Makes [`Field`] and [`FIELDS`] of one list: the field, its name as in JSON, shorter and other
/// names, what its values are, what it is a part of, and the words of the manual.
macro_rules! fields {
    ($($field:ident $name:literal [$($also:literal)*] $kind:expr, $of:ident, $doc:literal;)*) => {
        /// What may be compared.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Field {
            $($field,)*
        }

        /// Every field, in the order of the manual.
        pub const FIELDS: &[Row] = &[$(Row {
            field: Field::$field,
            name: $name,
            also: &[$($also),*],
            kind: $kind,
            of: Of::$of,
            doc: $doc,
        },)*];
    };
}

fields! {
    Pid "proc.pid" ["pid"] Kind::Number, Proc, "process id";
    Tid "proc.tid" ["tid"] Kind::Number, Piece, "thread id";
    Uid "proc.uid" ["uid"] Kind::User, Proc, "user, by number or name";
    Comm "proc.comm" ["comm"] Kind::Text, Proc, "command name";
    Exe "proc.exe" ["exe"] Kind::Text, Proc, "path of the executable";
    Container "proc.container" ["container"] Kind::Text, Proc, "first 12 digits of the id of its container";
    ConnId "conn.id" [] Kind::Number, Conn, "number of the connection, #17 in a line";
    Role "conn.role" ["role"] Kind::Listed(ROLES), Conn, "the side of the captured program: client, server";
    Local "conn.local" [] Kind::Text, Conn, "ADDR:PORT of the program";
    Remote "conn.remote" [] Kind::Text, Conn, "ADDR:PORT of its peer";
    Ip "ip" [] Kind::Address, Conn, "address of either end; also a block, ADDR/BITS";
    IpSrc "ip.src" ["src.ip"] Kind::Address, Conn, "address of the sender";
    IpDst "ip.dst" ["dst.ip"] Kind::Address, Conn, "address of the receiver";
    Port "port" [] Kind::Number, Conn, "port of either end";
    PortSrc "src.port" ["port.src"] Kind::Number, Conn, "port of the sender";
    PortDst "dst.port" ["port.dst"] Kind::Number, Conn, "port of the receiver";
    TlsLib "tls.lib" [] Kind::Listed(LIBS), Conn, "TLS library: openssl, boringssl, gnutls, nss, go, rustls ...";
    TlsSni "tls.sni" ["sni"] Kind::Name, Conn, "server name that the client sent";
    TlsAlpn "tls.alpn" ["alpn"] Kind::Text, Conn, "negotiated protocol: h2, http/1.1";
    TlsVersion "tls.version" [] Kind::Version, Conn, "TLS version: 1.2, 1.3";
    Dir "dir" [] Kind::Listed(DIRS), Conn, "direction: in (read), out (written)";
    Func "fn" [] Kind::Text, Piece, "function of the library, of a read or write";
    Len "len" [] Kind::Size, Piece, "bytes of a read or write, or of the content of a message";
    Payload "payload" [] Kind::Text, Piece, "these bytes themselves, a content as it was transferred";
    Lost "lost" [] Kind::Size, Piece, "bytes missing: of a gap, or of a content";
    Truncated "truncated" [] Kind::Flag, Piece, "bytes of it are missing";
    Proto "proto" [] Kind::Listed(PROTOCOLS), Message, "protocol of a message, by its exact name";
    Stream "stream" [] Kind::Number, Message, "stream of HTTP/2";
    Method "http.method" ["method"] Kind::Text, Message, "GET, POST ...";
    Url "http.url" ["url"] Kind::Text, Message, "the whole URL";
    Host "http.host" ["host"] Kind::Name, Message, "host that the request names, with or without its port";
    Path "http.path" ["path"] Kind::Text, Message, "path of the URL, without the query";
    Query "http.query" ["query"] Kind::Text, Message, "what follows the ?";
    Status "http.status" ["status"] Kind::Number, Message, "status of the response";
    Reason "http.reason" ["reason"] Kind::Text, Message, "the words behind the status (HTTP/1)";
    Version "http.version" [] Kind::Text, Message, "1.0, 1.1, 2";
    Type "http.type" ["type"] Kind::Name, Message, "media type of the message itself, without parameters";
    Header "http.header" ["header"] Kind::Text, Message, "header or trailer field, of the request or the response";
    ReqHeader "http.req.header" [] Kind::Text, Message, "field of the request";
    RespHeader "http.resp.header" [] Kind::Text, Message, "field of the response";
    Size "size" ["http.size"] Kind::Size, Message, "bytes of the content, as transferred";
    ReqSize "http.req.size" [] Kind::Size, Message, "likewise, in a request only";
    RespSize "http.resp.size" [] Kind::Size, Message, "likewise, in a response only";
    Body "body" ["http.body"] Kind::Text, Body, "the content, decoded; up to its first MiB";
    ReqBody "http.req.body" [] Kind::Text, Body, "likewise, in a request only";
    RespBody "http.resp.body" [] Kind::Text, Body, "likewise, in a response only";
    Time "time" ["elapsed" "http.time"] Kind::Time, Message, "first byte of the request to last of the response";
    Wait "wait" [] Kind::Time, Message, "first byte of the request to first of the response";
    GrpcMethod "grpc.method" [] Kind::Text, Message, "/package.Service/Method";
    GrpcStatus "grpc.status" [] Kind::Number, Message, "grpc-status of the response";
    Line "text" [] Kind::Text, Message, "the message in one line, of other protocols";
    Command "command" [] Kind::Text, Message, "likewise, of the request, in its response too";
}

const ROLES: fn() -> Vec<&'static str> = || vec!["client", "server"];
const DIRS: fn() -> Vec<&'static str> = || vec!["in", "out"];
const LIBS: fn() -> Vec<&'static str> = || Flavor::ALL.iter().map(|lib| lib.name()).collect();
const PROTOCOLS: fn() -> Vec<&'static str> =
    || Protocol::ALL.iter().map(|proto| proto.name()).collect();

/// The operators between tests, likewise: how they are written, and what they do.
pub const OPERATORS: &[(&str, &str)] = &[
    ("not E, ! E", "the test E fails"),
    ("E and F, E && F, E F", "both hold"),
    (
        "E or F, E || F",
        "one of them holds; binds less tightly than and",
    ),
    ("( E )", "grouping; quote it from the shell"),
];

/// How a field is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Contains,
    Matches,
}

/// The operators behind a field: how they are written, how they are shown, and what they do.
pub const COMPARISONS: &[(Op, &[&str], &str, &str)] = &[
    (Op::Equal, &["==", "eq", "="], "F == V, F eq V", "it is V"),
    (
        Op::Unequal,
        &["!=", "ne"],
        "F != V, F ne V",
        "it has a value, and none that is V",
    ),
    (Op::Less, &["<", "lt"], "F < V, F lt V", "it is less"),
    (
        Op::LessOrEqual,
        &["<=", "le"],
        "F <= V, F le V",
        "it is V or less",
    ),
    (Op::Greater, &[">", "gt"], "F > V, F gt V", "it is more"),
    (
        Op::GreaterOrEqual,
        &[">=", "ge"],
        "F >= V, F ge V",
        "it is V or more",
    ),
    (
        Op::In,
        &["in"],
        "F in {V, V..V}",
        "it is one of these or lies between them",
    ),
    (
        Op::Contains,
        &["contains"],
        "F contains V",
        "these bytes are in it",
    ),
    (
        Op::Matches,
        &["matches", "~"],
        "F matches /V/, F ~ V",
        "a regular expression is found in it, whatever the case",
    ),
];

/// The word by its name.
pub fn lookup(name: &str) -> Option<Word> {
    WORDS
        .iter()
        .find(|entry| entry.name == name)
        .map(|entry| entry.word)
}

/// The name of the word.
pub fn name(word: Word) -> &'static str {
    WORDS
        .iter()
        .find(|entry| entry.word == word)
        .map_or("", |entry| entry.name)
}

/// The field by any of its names.
pub fn field(name: &str) -> Option<&'static Row> {
    FIELDS
        .iter()
        .find(|row| row.name == name || row.also.contains(&name))
}

/// The protocol whose name is a word.
pub fn protocol(name: &str) -> Option<Protocol> {
    Protocol::ALL
        .iter()
        .copied()
        .find(|protocol| protocol.name() == name)
}

/// The operator as it is written.
pub fn operator(text: &str) -> Option<Op> {
    COMPARISONS
        .iter()
        .find(|(_, forms, ..)| forms.contains(&text))
        .map(|row| row.0)
}

impl Row {
    /// Whether it needs a name in brackets.
    pub fn has_key(&self) -> bool {
        matches!(
            self.field,
            Field::Header | Field::ReqHeader | Field::RespHeader
        )
    }
}

#[cfg(test)]
#[path = "fields_tests.rs"]
mod tests;
