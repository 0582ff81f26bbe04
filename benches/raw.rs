//! Connections without a client library, where hundreds are needed: one librdkafka producer has threads of its own.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use broker::BatchBuilder;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiVersionsRequest, ProduceRequest, ProduceResponse, RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

use crate::Outcome;

/// The last version that names topics, before they had ids.
const PRODUCE_VERSION: i16 = 12;
const API_VERSIONS_VERSION: i16 = 0;
/// How long the broker may take to write, in milliseconds.
const PRODUCE_TIMEOUT_MS: i32 = 30_000;
/// How long the answer to a hello may take.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// The largest answer that is taken.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Where the correlation id stands in a frame: after the length, the API's key and its version.
const CORRELATION_AT: usize = 8;

/// A request with its length before it.
fn frame<R: Request>(request: &R, version: i16) -> Outcome<BytesMut> {
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_client_id(Some(StrBytes::from_static_str("bench")));
    let mut body = BytesMut::new();
    header.encode(&mut body, R::header_version(version))?;
    request.encode(&mut body, version)?;
    let mut frame = BytesMut::with_capacity(body.len() + 4);
    frame.put_i32(i32::try_from(body.len())?);
    frame.put(body);
    Ok(frame)
}

/// Connections that have said hello, as clients do, and nothing since.
///
/// # Errors
/// The broker takes no more of them.
pub fn idle(bootstrap: &str, count: usize) -> Outcome<Vec<TcpStream>> {
    let hello = frame(&ApiVersionsRequest::default(), API_VERSIONS_VERSION)?;
    let mut connections = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = TcpStream::connect(bootstrap)?;
        stream.write_all(&hello)?;
        connections.push(stream);
    }
    // an answer shows that a connection is served
    for stream in &connections {
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.peek(&mut [0])?;
    }
    Ok(connections)
}

/// A produce request of one record, encoded once and sent again and again.
pub struct OneRecord {
    frame: BytesMut,
    correlation: i32,
}

impl OneRecord {
    /// To one partition, `acks=all`, without a key.
    ///
    /// # Errors
    /// None in practice.
    pub fn new(topic: &str, partition: i32, value: &[u8]) -> Outcome<Self> {
        let mut batch = BatchBuilder::new();
        batch.push(broker::Clock::system().now_ms(), None, Some(value), &[]);
        let batch = batch.build().ok_or("a batch without records")?;
        let data = PartitionProduceData::default().with_index(partition).with_records(Some(batch.bytes().clone()));
        let topic = TopicProduceData::default()
            .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
            .with_partition_data(vec![data]);
        let request =
            ProduceRequest::default().with_acks(-1).with_timeout_ms(PRODUCE_TIMEOUT_MS).with_topic_data(vec![topic]);
        Ok(Self { frame: frame(&request, PRODUCE_VERSION)?, correlation: 0 })
    }

    /// The next request's bytes.
    pub fn bytes(&mut self) -> &[u8] {
        self.correlation = self.correlation.wrapping_add(1);
        self.frame[CORRELATION_AT..CORRELATION_AT + 4].copy_from_slice(&self.correlation.to_be_bytes());
        &self.frame
    }

    /// Checks that this answers the last request, and that the record was taken.
    ///
    /// # Errors
    /// It does not, or it was not.
    pub fn check(&self, answer: &mut Bytes) -> Outcome<()> {
        let header = ResponseHeader::decode(answer, ProduceResponse::header_version(PRODUCE_VERSION))?;
        if header.correlation_id != self.correlation {
            return Err(format!("answer {} to request {}", header.correlation_id, self.correlation).into());
        }
        let response = ProduceResponse::decode(answer, PRODUCE_VERSION)?;
        let partitions = response.responses.iter().flat_map(|topic| &topic.partition_responses);
        let mut taken = 0;
        for partition in partitions {
            if partition.error_code != 0 {
                return Err(format!("a record was refused with code {}", partition.error_code).into());
            }
            taken += 1;
        }
        if taken == 1 && !answer.has_remaining() { Ok(()) } else { Err("an answer of another form".into()) }
    }
}

/// The length of the answer that four bytes announce.
///
/// # Errors
/// It is negative or too large.
pub fn answer_bytes(length: i32) -> Outcome<usize> {
    match usize::try_from(length) {
        Ok(length) if length <= ANSWER_BYTES_MAX => Ok(length),
        _ => Err(format!("an answer of {length} bytes").into()),
    }
}
