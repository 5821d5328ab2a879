//! Kafka's protocol: requests by API, version, correlation id and topic; responses by size.

use super::detect::{First, Look, Side};
use super::lines::{Grammar, Last, Piece, Told};
use super::message::Protocol;
use super::phrase::{self, Phrase};
use super::reader::Reader;

/// `socket.request.max.bytes` of brokers, by default.
const MAX_MESSAGE: u32 = 100 << 20;
const MAX_CLIENT_ID: u16 = 255;
/// Versions have stayed below this.
const MAX_VERSION: u16 = 20;

const PRODUCE: u16 = 0;
const FETCH: u16 = 1;
const METADATA: u16 = 3;

const APIS: &[&str] = &[
    "Produce",
    "Fetch",
    "ListOffsets",
    "Metadata",
    "LeaderAndIsr",
    "StopReplica",
    "UpdateMetadata",
    "ControlledShutdown",
    "OffsetCommit",
    "OffsetFetch",
    "FindCoordinator",
    "JoinGroup",
    "Heartbeat",
    "LeaveGroup",
    "SyncGroup",
    "DescribeGroups",
    "ListGroups",
    "SaslHandshake",
    "ApiVersions",
    "CreateTopics",
    "DeleteTopics",
    "DeleteRecords",
    "InitProducerId",
    "OffsetForLeaderEpoch",
    "AddPartitionsToTxn",
    "AddOffsetsToTxn",
    "EndTxn",
    "WriteTxnMarkers",
    "TxnOffsetCommit",
    "DescribeAcls",
    "CreateAcls",
    "DeleteAcls",
    "DescribeConfigs",
    "AlterConfigs",
    "AlterReplicaLogDirs",
    "DescribeLogDirs",
    "SaslAuthenticate",
    "CreatePartitions",
    "CreateDelegationToken",
    "RenewDelegationToken",
    "ExpireDelegationToken",
    "DescribeDelegationToken",
    "DeleteGroups",
    "ElectLeaders",
    "IncrementalAlterConfigs",
    "AlterPartitionReassignments",
    "ListPartitionReassignments",
    "OffsetDelete",
    "DescribeClientQuotas",
    "AlterClientQuotas",
    "DescribeUserScramCredentials",
    "AlterUserScramCredentials",
    "Vote",
    "BeginQuorumEpoch",
    "EndQuorumEpoch",
    "DescribeQuorum",
    "AlterPartition",
    "UpdateFeatures",
    "Envelope",
    "FetchSnapshot",
    "DescribeCluster",
    "DescribeProducers",
    "BrokerRegistration",
    "BrokerHeartbeat",
    "UnregisterBroker",
    "DescribeTransactions",
    "ListTransactions",
    "AllocateProducerIds",
    "ConsumerGroupHeartbeat",
    "ConsumerGroupDescribe",
    "ControllerRegistration",
    "GetTelemetrySubscriptions",
    "PushTelemetry",
    "AssignReplicasToDirs",
    "ListClientMetricsResources",
    "DescribeTopicPartitions",
];

#[derive(Debug, Default)]
pub struct Kafka;

impl Grammar for Kafka {
    const PROTOCOL: Protocol = Protocol::Kafka;
    const IS_KEYED: bool = true;

    fn piece(&self, side: Side, bytes: &[u8]) -> Piece {
        let mut reader = Reader::new(bytes);
        let Some(len) = reader.u32() else {
            return Piece::More;
        };
        if !(4..=MAX_MESSAGE).contains(&len) || side == Side::Client && !may_be_request(reader) {
            return Piece::Wrong;
        }
        Piece::Len(u64::from(len).saturating_add(4))
    }

    fn take(&mut self, side: Side, head: &[u8], len: u64, told: &mut Told<'_, '_>) -> bool {
        let mut reader = Reader::new(head);
        reader.u32();
        let result = match side {
            Side::Client => request(reader, len, told),
            Side::Server => reader.u32().map(|id| {
                let phrase = Phrase::new().size(len).pair("id", Some(id.to_string()));
                told.answer_key(id.into(), Last::Yes, phrase);
            }),
        };
        result.is_some() || told.is_cut
    }

    fn begins(&self, side: Side, bytes: &[u8]) -> bool {
        match side {
            Side::Client => is_request(bytes) == Look::Is(Side::Client),
            Side::Server => super::lines::are_pieces(self, side, bytes),
        }
    }
}

/// As far as it is there: an API and version that exist.
fn may_be_request(mut reader: Reader<'_>) -> bool {
    let api = reader.u16().is_none_or(|api| usize::from(api) < APIS.len());
    api && reader.u16().is_none_or(|version| version <= MAX_VERSION)
}

fn request(mut reader: Reader<'_>, len: u64, told: &mut Told<'_, '_>) -> Option<()> {
    let api = reader.u16()?;
    let version = reader.u16()?;
    let id = reader.u32()?;
    let name = APIS.get(usize::from(api))?;
    let client = nullable(&mut reader);
    let phrase = Phrase::of(name).word(format!("v{version}"));
    let topic = topic(api, version, reader);
    let phrase = phrase
        .pair("topic", topic)
        .pair("id", Some(id.to_string()))
        .pair("client", client.flatten())
        .size(len);
    // Nobody answers a Produce that wants no acknowledgement.
    if api == PRODUCE && acks(version, reader) == Some(0) {
        told.single(phrase);
    } else {
        told.ask(id.into(), phrase);
    }
    Some(())
}

/// A string or nothing, behind its length in two bytes.
fn nullable<'a>(reader: &mut Reader<'a>) -> Option<Option<&'a [u8]>> {
    match reader.u16()? {
        0xffff => Some(None),
        len => reader.take(len.into()).map(Some),
    }
}

/// A length of the newer encoding, one less than what is written.
fn compact(reader: &mut Reader<'_>) -> Option<usize> {
    let mut value = 0usize;
    for shift in [0, 7, 14, 21] {
        let byte = reader.u8()?;
        value |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return value.checked_sub(1);
        }
    }
    None
}

fn acks(version: u16, mut reader: Reader<'_>) -> Option<u16> {
    match version {
        0..=2 => {}
        3..=8 => {
            nullable(&mut reader)?;
        }
        _ => {
            reader.u8()?;
            let len = compact(&mut reader).unwrap_or(0);
            reader.take(len)?;
        }
    }
    reader.u16()
}

/// The first topic, where it stands near the front.
fn topic(api: u16, version: u16, mut reader: Reader<'_>) -> Option<&[u8]> {
    let is_compact = match api {
        PRODUCE => version >= 9,
        FETCH => version >= 12,
        METADATA => version >= 9,
        _ => return None,
    };
    if is_compact {
        // The tagged fields of the header.
        reader.take(1)?;
    }
    match (api, version) {
        (PRODUCE, 0..=2) => reader.take(6)?,
        (PRODUCE, 3..=8) => {
            nullable(&mut reader)?;
            reader.take(6)?
        }
        (PRODUCE, 9..=12) => {
            let len = compact(&mut reader).unwrap_or(0);
            reader.take(len)?;
            reader.take(6)?
        }
        (FETCH, 0..=2) => reader.take(12)?,
        (FETCH, 3) => reader.take(16)?,
        (FETCH, 4..=6) => reader.take(17)?,
        (FETCH, 7..=12) => reader.take(25)?,
        (METADATA, 0..=9) => &[],
        (METADATA, 10..) => &[],
        // Topics are named by numbers from here on.
        _ => return None,
    };
    let count = if is_compact {
        compact(&mut reader)?
    } else {
        usize::try_from(reader.u32()?)
            .ok()
            .filter(|count| *count < 1 << 20)?
    };
    if count == 0 {
        return None;
    }
    if api == METADATA && version >= 10 {
        reader.take(16)?;
    }
    let topic = if is_compact {
        let len = compact(&mut reader)?;
        reader.take(len)?
    } else {
        reader.short_string()?
    };
    phrase::is_printable(topic).then_some(topic)
}

pub fn look(first: &First<'_>) -> Look {
    if first.side == Some(Side::Server) {
        return Look::No;
    }
    is_request(first.bytes)
}

/// A request with the name of a client, of the length of the bytes or longer.
fn is_request(bytes: &[u8]) -> Look {
    let mut reader = Reader::new(bytes);
    let Some(len) = reader.u32() else {
        return Look::No;
    };
    let have = reader.rest().len() as u64;
    if !(11..=MAX_MESSAGE).contains(&len) || have > u64::from(len) || !may_be_request(reader) {
        return Look::No;
    }
    reader.take(8);
    match nullable(&mut reader) {
        Some(Some(name)) => {
            let is_name = !name.is_empty()
                && name.len() <= MAX_CLIENT_ID.into()
                && phrase::is_printable(name);
            let is_name = is_name && name.first().is_some_and(u8::is_ascii_alphanumeric);
            // A longer request may come in several pieces, of which this is not a short one.
            if is_name && (have == u64::from(len) || have >= 32) {
                Look::Is(Side::Client)
            } else {
                Look::No
            }
        }
        _ => Look::No,
    }
}
