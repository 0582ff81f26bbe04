//! A Kafka connection with nothing between the test and the bytes: frames out, frames in.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{
    ApiVersionsRequest, FetchRequest, RequestHeader, ResponseHeader, SaslAuthenticateRequest, SaslHandshakeRequest,
    TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use kafka_protocol::records::{
    Compression, Record, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Mutex;
use std::time::Duration;

/// The largest answer a test takes.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Different answers that are remembered of each API and version.
const HEARD_MAX: usize = 64;
/// The longest answer that is remembered.
const HEARD_BYTES_MAX: usize = 64 << 10;

/// Bodies of answers by API key and version, for `wire`: kafka-clients must write them as they came.
pub static HEARD: Mutex<BTreeMap<(i16, i16), BTreeSet<Bytes>>> = Mutex::new(BTreeMap::new());

fn remember(key: i16, version: i16, body: &Bytes) {
    let mut heard = HEARD.lock().unwrap();
    let bodies = heard.entry((key, version)).or_default();
    if bodies.len() < HEARD_MAX && body.len() <= HEARD_BYTES_MAX {
        bodies.insert(body.clone());
    }
}

pub struct Client {
    stream: TcpStream,
    correlation: i32,
}

impl Client {
    pub fn connect(address: &str) -> Client {
        Client::try_connect(address).unwrap()
    }

    pub fn try_connect(address: &str) -> Result<Client, String> {
        let target = address.to_socket_addrs().map_err(|e| e.to_string())?.next().ok_or("no address")?;
        let stream =
            TcpStream::connect_timeout(&target, Duration::from_secs(5)).map_err(|e| format!("{address}: {e}"))?;
        stream.set_read_timeout(Some(Duration::from_secs(40))).map_err(|e| e.to_string())?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        Ok(Client { stream, correlation: 0 })
    }

    /// Ok once the broker answers ApiVersions.
    pub fn ready(&mut self) -> Result<(), String> {
        self.call(&ApiVersionsRequest::default(), 0).map(|_| ())
    }

    /// Logs in by PLAIN.
    pub fn log_in(&mut self, user: &str, password: &str) -> Result<(), String> {
        let handshake = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str("PLAIN"));
        let code = self.call(&handshake, 1)?.error_code;
        if code != 0 {
            return Err(format!("the handshake failed: {code}"));
        }
        let token = SaslAuthenticateRequest::default().with_auth_bytes(format!("\0{user}\0{password}").into());
        let answer = self.call(&token, 1)?;
        if answer.error_code == 0 { Ok(()) } else { Err(format!("{answer:?}")) }
    }

    /// One request and its answer.
    pub fn call<R: Request>(&mut self, request: &R, version: i16) -> Result<R::Response, String> {
        self.send(request, version)?;
        self.receive::<R>(version, 0)
    }

    /// Sends without waiting.
    pub fn send<R: Request>(&mut self, request: &R, version: i16) -> Result<(), String> {
        self.correlation += 1;
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(StrBytes::from_static_str("millpond-tests")));
        let mut body = BytesMut::new();
        header.encode(&mut body, R::header_version(version)).map_err(|e| e.to_string())?;
        request.encode(&mut body, version).map_err(|e| e.to_string())?;
        let mut frame = BytesMut::with_capacity(body.len() + 4);
        frame.put_i32(body.len() as i32);
        frame.put(body);
        self.send_bytes(&frame)
    }

    /// The next answer, which must be to the last request but `behind`.
    pub fn receive<R: Request>(&mut self, version: i16, behind: i32) -> Result<R::Response, String> {
        let mut frame = self.read_frame()?;
        let header =
            ResponseHeader::decode(&mut frame, R::Response::header_version(version)).map_err(|e| e.to_string())?;
        let wanted = self.correlation - behind;
        if header.correlation_id != wanted {
            return Err(format!("answer to request {} instead of {wanted}", header.correlation_id));
        }
        remember(R::KEY, version, &frame);
        let answer = R::Response::decode(&mut frame, version).map_err(|e| e.to_string())?;
        if frame.has_remaining() {
            return Err(format!("{} bytes left after the answer", frame.remaining()));
        }
        Ok(answer)
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.stream.write_all(bytes).map_err(|e| format!("write: {e}"))
    }

    pub fn read_frame(&mut self) -> Result<Bytes, String> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).map_err(|e| format!("read: {e}"))?;
        let length = i32::from_be_bytes(length) as usize;
        if length > ANSWER_BYTES_MAX {
            return Err(format!("an answer of {length} bytes"));
        }
        let mut frame = vec![0; length];
        self.stream.read_exact(&mut frame).map_err(|e| format!("read: {e}"))?;
        Ok(frame.into())
    }

    /// True when the other side has closed the connection within `within`.
    pub fn is_closed_within(&mut self, within: Duration) -> bool {
        self.stream.set_read_timeout(Some(within)).unwrap();
        let mut byte = [0; 1];
        match self.stream.read(&mut byte) {
            Ok(0) => true,
            Ok(_) => false,
            Err(e) => !matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
        }
    }
}

/// What a test says of one record.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlainRecord {
    pub key: Option<String>,
    pub value: Option<String>,
    pub timestamp: i64,
}

/// Producer identity of a batch; the default is none.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    pub producer_id: i64,
    pub epoch: i16,
    pub sequence: i32,
    pub transactional: bool,
}

impl Default for Identity {
    fn default() -> Identity {
        Identity { producer_id: -1, epoch: -1, sequence: -1, transactional: false }
    }
}

/// One uncompressed v2 batch.
pub fn batch(records: &[PlainRecord], identity: Identity) -> Bytes {
    let records: Vec<Record> = records
        .iter()
        .enumerate()
        .map(|(i, record)| Record {
            transactional: identity.transactional,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: identity.producer_id,
            producer_epoch: identity.epoch,
            timestamp_type: TimestampType::Creation,
            offset: i as i64,
            sequence: if identity.sequence < 0 { -1 + i as i32 } else { identity.sequence + i as i32 },
            timestamp: record.timestamp,
            key: record.key.clone().map(Bytes::from),
            value: record.value.clone().map(Bytes::from),
            headers: IndexMap::new(),
        })
        .collect();
    let mut bytes = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut bytes, &records, &options).unwrap();
    bytes.freeze()
}

/// Asks for what a partition has from an offset on, a MiB of it; with `stable` as far as transactions have ended.
pub fn fetch_request((topic, partition): (&str, i32), from: i64, stable: bool) -> FetchRequest {
    let wanted = FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(from)
        .with_current_leader_epoch(-1)
        .with_partition_max_bytes(1 << 20);
    let topic = TopicName(StrBytes::from_string(topic.to_owned()));
    let wanted = FetchTopic::default().with_topic(topic).with_partitions(vec![wanted]);
    FetchRequest::default()
        .with_isolation_level(i8::from(stable))
        .with_session_epoch(-1)
        .with_max_bytes(1 << 20)
        .with_topics(vec![wanted])
}

/// All records of a fetch answer's records field (uncompressed batches).
pub fn records_in(mut bytes: Bytes) -> Vec<Record> {
    let mut records = Vec::new();
    while bytes.len() > 12 {
        let length = i32::from_be_bytes(bytes[8..12].try_into().unwrap()) as usize + 12;
        if bytes.len() < length {
            break;
        }
        let mut one = bytes.split_to(length);
        records.extend(RecordBatchDecoder::decode(&mut one).unwrap().records);
    }
    records
}
