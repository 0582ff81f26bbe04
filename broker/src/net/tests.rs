//! The wire as a peer sees it: real sockets, raw bytes, and what may never happen whatever is sent.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, MetadataResponse, ProduceResponse};
use kafka_protocol::protocol::Decodable;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::frame::{End, FrameReader};
use super::{Listening, serve, shapes};
use crate::handlers::APIS;
use crate::handlers::golden_tests::golden_requests;
use crate::handlers::samples::{TOPIC, decode_request, decode_response, sample};
use crate::types::TopicId;
use crate::{BatchBuilder, Broker, BrokerConfig, Clock, ListenerConfig, NewTopic};

/// Counts what the current thread asks for, so that a test can say how much a decode may take.
struct Counting;

thread_local! {
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[allow(unsafe_code, reason = "an allocator cannot be written without it; for tests only")]
// SAFETY: every call is handed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ASKED.try_with(|asked| asked.set(asked.get() + layout.size()));
        // SAFETY: the caller keeps the contract, see above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract, see above.
        unsafe { System.dealloc(at, layout) }
    }
}

struct Node {
    broker: Arc<Broker>,
    listening: Listening,
    id: TopicId,
    _dir: tempfile::TempDir,
}

async fn node() -> Node {
    let dir = tempfile::tempdir().unwrap();
    let listener = |name: &str, advertise: Option<&str>| ListenerConfig {
        name: name.to_owned(),
        bind: "127.0.0.1:0".to_owned(),
        advertise: advertise.map(str::to_owned),
        ..ListenerConfig::default()
    };
    let config = BrokerConfig {
        data_dir: dir.path().to_owned(),
        listeners: vec![listener("inside", None), listener("outside", Some("mill.example:19092"))],
        frame_bytes_max: 1 << 20,
        connections_max: 8,
        group_initial_rebalance_delay_ms: 0,
        ..BrokerConfig::default()
    };
    let broker = Broker::open(config, Clock::system()).await.unwrap();
    let new = NewTopic { name: TOPIC.to_owned(), partitions: 2, ..NewTopic::default() };
    let id = broker.catalog().create(new).await.unwrap().id();
    let listening = serve(broker.clone()).await.unwrap();
    Node { broker, listening, id, _dir: dir }
}

impl Node {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.listening.addresses()[0]).await.unwrap()
    }

    async fn end(self) {
        self.listening.stop().await;
        self.broker.stop().await.unwrap();
    }
}

fn records() -> Bytes {
    let mut batch = BatchBuilder::new();
    batch.push(1_700_000_000_000, Some(b"key"), Some(b"value"), &[(b"h", Some(b"1")), (b"h", None)]);
    batch.push(1_700_000_000_001, None, Some(b"other"), &[]);
    batch.build().unwrap().bytes().clone()
}

/// A whole request: length, header, body.
pub(super) fn request(key: ApiKey, version: i16, correlation_id: i32, body: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    out.put_i16(key as i16);
    out.put_i16(version);
    out.put_i32(correlation_id);
    out.put_i16(4);
    out.put_slice(b"test");
    if key.request_header_version(version) >= 2 {
        out.put_u8(0);
    }
    out.put_slice(body);
    let mut framed = (out.len() as i32).to_be_bytes().to_vec();
    framed.extend(out);
    framed
}

/// One reply without its length; `None` if the connection was closed instead.
pub(super) async fn reply(stream: &mut (impl AsyncRead + Unpin)) -> Option<Bytes> {
    let read = async {
        let length = stream.read_i32().await.ok()?;
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut bytes).await.ok()?;
        Some(Bytes::from(bytes))
    };
    tokio::time::timeout(Duration::from_secs(20), read).await.expect("a reply or the end within 20 s")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_api_answers_in_every_version() {
    let node = node().await;
    let mut correlation_id = 0;
    for api in APIS {
        for version in api.min..=api.max {
            let mut stream = node.connect().await;
            correlation_id += 1;
            let body = sample(api.key, version, node.id, &records());
            stream.write_all(&request(api.key, version, correlation_id, &body)).await.unwrap();
            let mut reply = reply(&mut stream).await.unwrap_or_else(|| panic!("{:?} {version}: no reply", api.key));
            assert_eq!(reply.get_i32(), correlation_id);
            if api.key.response_header_version(version) >= 1 {
                assert_eq!(reply.get_u8(), 0, "{:?} {version}: tags of the header", api.key);
            }
            let decoded = decode_response(api.key, version, &mut reply);
            assert!(decoded.is_ok(), "{:?} {version}: {:?}", api.key, decoded.err());
            assert!(reply.is_empty(), "{:?} {version}: {} bytes are left over", api.key, reply.len());
        }
    }
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn api_versions_to_the_byte() {
    let node = node().await;
    let mut stream = node.connect().await;
    // a version from the future: answered in version 0 with code 35 and one entry, [18, 0, 4]
    for version in [5, 99, i16::MAX, -1] {
        let mut future = request(ApiKey::ApiVersions, 4, 7, b"whatever comes then");
        future[6..8].copy_from_slice(&version.to_be_bytes());
        stream.write_all(&future).await.unwrap();
        let reply = reply(&mut stream).await.unwrap();
        assert_eq!(hex(&reply), "00000007".to_owned() + "0023" + "00000001" + "0012" + "0000" + "0004");
    }
    // then the client asks again on the same connection; the header has no tags even in flexible versions
    for version in 0..=4 {
        let body = sample(ApiKey::ApiVersions, version, node.id, &records());
        stream.write_all(&request(ApiKey::ApiVersions, version, 8, &body)).await.unwrap();
        let reply = reply(&mut stream).await.unwrap();
        let mut expected = "00000008".to_owned() + "0000";
        let tag = if version >= 3 { "00" } else { "" };
        expected += &if version >= 3 { format!("{:02x}", APIS.len() + 1) } else { format!("{:08x}", APIS.len()) };
        for api in APIS {
            expected += &format!("{:04x}{:04x}{:04x}{tag}", api.key as i16, api.advertised_min, api.max);
        }
        expected += if version >= 1 { "00000000" } else { "" };
        let metadata_version = "116d657461646174612e76657273696f6e";
        match version {
            0..3 => {}
            // tags: 0 supported features, 1 epoch, 2 finalized features; what starts at 0 is shown from version 4 on
            3 => expected += &format!("0300{:02x}02{metadata_version}0007001900", 1 + 17 + 5),
            _ => {
                let (group, transaction) = ("0e67726f75702e76657273696f6e", "147472616e73616374696f6e2e76657273696f6e");
                let supported = format!("04{metadata_version}0007001900{group}0000000100{transaction}0000000200");
                expected += &format!("0300{:02x}{supported}", supported.len() / 2);
            }
        }
        if version >= 3 {
            expected += "01080000000000000001";
            let (group, transaction) = ("0e67726f75702e76657273696f6e", "147472616e73616374696f6e2e76657273696f6e");
            let finalized = format!("04{metadata_version}0019001900{group}0001000100{transaction}0002000200");
            expected += &format!("02{:02x}{finalized}", finalized.len() / 2);
        }
        assert_eq!(hex(&reply), expected, "version {version}");
    }
    let produce = APIS.iter().find(|api| api.key == ApiKey::Produce).unwrap();
    assert_eq!((produce.advertised_min, produce.min, produce.max), (0, 3, 13));
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_listener_gives_its_own_address() {
    let node = node().await;
    let outside = ("mill.example".to_owned(), 19092);
    let inside = ("127.0.0.1".to_owned(), i32::from(node.listening.addresses()[0].port()));
    for (address, expected) in node.listening.addresses().iter().zip([inside, outside]) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let body = sample(ApiKey::Metadata, 12, node.id, &records());
        stream.write_all(&request(ApiKey::Metadata, 12, 1, &body)).await.unwrap();
        let mut reply = reply(&mut stream).await.unwrap();
        reply.advance(5);
        let metadata = MetadataResponse::decode(&mut reply, 12).unwrap();
        assert_eq!((metadata.brokers[0].host.to_string(), metadata.brokers[0].port), expected);
    }
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_replies_leave_in_the_order_of_the_requests() {
    let node = node().await;
    let mut stream = node.connect().await;
    let mut bytes = Vec::new();
    for id in 0..300 {
        let (key, version) =
            [(ApiKey::Produce, 9), (ApiKey::Metadata, 12), (ApiKey::ListOffsets, 7), (ApiKey::Produce, 3)][id % 4];
        bytes.extend(request(key, version, id as i32, &sample(key, version, node.id, &records())));
    }
    // in pieces that do not respect any border
    let (mut input, mut output) = stream.split();
    let sending = async {
        for piece in bytes.chunks(997) {
            output.write_all(piece).await.unwrap();
        }
    };
    let receiving = async {
        let mut next_offset = 0;
        for id in 0..300 {
            let length = input.read_i32().await.unwrap();
            let mut reply = vec![0; length as usize];
            input.read_exact(&mut reply).await.unwrap();
            let mut reply = Bytes::from(reply);
            assert_eq!(reply.get_i32(), id);
            let version = match id % 4 {
                0 => 9,
                3 => 3,
                _ => continue,
            };
            reply.advance(usize::from(version == 9));
            let produced = ProduceResponse::decode(&mut reply, version).unwrap();
            let partition = &produced.responses[0].partition_responses[0];
            assert_eq!((partition.error_code, partition.base_offset), (0, next_offset));
            next_offset += 2;
        }
    };
    tokio::join!(sending, receiving);
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_bytes_close_the_connection_and_harm_nobody_else() {
    let node = node().await;
    let mut good = node.connect().await;
    let unknown_key = request(ApiKey::Vote, 0, 1, b"");
    let old_produce = request(ApiKey::Produce, 2, 1, b"");
    let mut leftover = sample(ApiKey::Metadata, 12, node.id, &records()).to_vec();
    leftover.push(0);
    let huge_list = request(ApiKey::Metadata, 1, 1, &i32::MAX.to_be_bytes());
    let cases: Vec<Vec<u8>> = vec![
        i32::MIN.to_be_bytes().to_vec(),
        (-1i32).to_be_bytes().to_vec(),
        0i32.to_be_bytes().to_vec(),
        [&7i32.to_be_bytes()[..], &[0; 7]].concat(),
        i32::MAX.to_be_bytes().to_vec(),
        ((1i32 << 20) + 1).to_be_bytes().to_vec(),
        b"GET / HTTP/1.1\r\nHost: millpond\r\n\r\n".to_vec(),
        [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3].to_vec(),
        unknown_key,
        old_produce,
        huge_list,
        request(ApiKey::Metadata, 14, 1, b""),
        [&8i32.to_be_bytes()[..], &[0, 3, 0, 1, 0, 0, 0, 1]].concat(),
    ];
    for (number, case) in cases.iter().enumerate() {
        let mut stream = node.connect().await;
        stream.write_all(case).await.unwrap();
        assert_eq!(reply(&mut stream).await, None, "case {number}");
    }
    // bytes after a request are passed over, as Kafka does
    let mut stream = node.connect().await;
    stream.write_all(&request(ApiKey::Metadata, 12, 1, &leftover)).await.unwrap();
    assert!(reply(&mut stream).await.is_some());
    // cut off in the middle: nothing to be told, nothing kept
    let mut stream = node.connect().await;
    stream.write_all(&[0, 0, 1, 0, 1, 2, 3]).await.unwrap();
    drop(stream);
    let body = sample(ApiKey::Metadata, 12, node.id, &records());
    good.write_all(&request(ApiKey::Metadata, 12, 5, &body)).await.unwrap();
    assert!(reply(&mut good).await.is_some());
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_limited_and_stop_is_prompt() {
    let node = node().await;
    let body = sample(ApiKey::Metadata, 12, node.id, &records());
    let ask = request(ApiKey::Metadata, 12, 5, &body);
    let mut open = Vec::new();
    for _ in 0..8 {
        let mut stream = node.connect().await;
        stream.write_all(&ask).await.unwrap();
        assert!(reply(&mut stream).await.is_some());
        open.push(stream);
    }
    let mut ninth = node.connect().await;
    let _ = ninth.write_all(&ask).await;
    assert_eq!(reply(&mut ninth).await, None);
    drop(open.pop());
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        let mut again = node.connect().await;
        let _ = again.write_all(&ask).await;
        if reply(&mut again).await.is_some() {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "a closed connection does not make room");
    }
    let started = std::time::Instant::now();
    node.end().await;
    assert!(started.elapsed() < Duration::from_secs(3), "idle connections hold up the stop");
    assert_eq!(reply(&mut open[0]).await, None);
}

#[test]
fn samples_have_the_shapes_of_the_table() {
    for api in APIS {
        for version in api.min..=api.max {
            let body = sample(api.key, version, TopicId::from_u128(1), &records());
            let checked = shapes::check(api.key as i16, version, &body);
            assert!(checked.is_ok(), "{:?} {version}: {checked:?}", api.key);
            for end in 0..body.len() {
                let cut = shapes::check(api.key as i16, version, &body[..end]);
                assert!(cut.is_err(), "{:?} {version}: cut after {end} of {} bytes", api.key, body.len());
            }
        }
    }
}

/// Starts from our samples and from what kafka-clients writes (`tests/golden/protocol`). MILLPOND_ROUNDS says how long.
#[test]
fn no_bytes_make_decoding_panic_or_allocate() {
    let mut rng = rand::rngs::StdRng::seed_from_u64(crate::seed::seed("no_bytes_make_decoding_panic_or_allocate"));
    let rounds = std::env::var("MILLPOND_ROUNDS").map_or(300, |rounds| rounds.parse().unwrap());
    for api in APIS {
        let mut corpus = golden_requests(api.key);
        for version in api.min..=api.max {
            corpus.push((version, sample(api.key, version, TopicId::from_u128(1), &records())));
        }
        for round in 0..rounds {
            let (version, body) = &corpus[rng.random_range(0..corpus.len())];
            let (version, mut body) = (*version, body.to_vec());
            if round % 10 == 0 {
                body = (0..rng.random_range(0..200)).map(|_| rng.random()).collect();
            }
            for _ in 0..rng.random_range(1..6) {
                mutate(&mut body, &mut rng);
            }
            decodes_within_bounds(api.key, version, Bytes::from(body));
        }
    }
}

fn decodes_within_bounds(key: ApiKey, version: i16, body: Bytes) {
    let before = ASKED.get();
    if shapes::check(key as i16, version, &body).is_err() {
        return;
    }
    let decoded = decode_request(key, version, &mut body.clone());
    let asked = ASKED.get() - before;
    assert!(asked < 8192 + 512 * body.len(), "{key:?} {version} asked for {asked}: {}", hex(&body));
    drop(decoded);
}

fn mutate(body: &mut Vec<u8>, rng: &mut impl Rng) {
    if body.is_empty() {
        return;
    }
    let at = rng.random_range(0..body.len());
    match rng.random_range(0..5) {
        0 => body[at] = rng.random(),
        1 => body.truncate(at),
        2 => body.insert(at, rng.random()),
        3 => body[at..].iter_mut().take(4).for_each(|byte| *byte = 0x7f),
        _ => body[at] ^= 1 << rng.random_range(0..8),
    }
}

#[test]
fn what_decoding_multiplies_is_bounded() {
    // one list of empty strings: the cheapest element there is, one byte each
    let many = |count: usize| {
        let mut body = BytesMut::new();
        let mut rest = count + 1;
        while rest >= 0x80 {
            body.put_u8(rest as u8 | 0x80);
            rest >>= 7;
        }
        body.put_u8(rest as u8);
        body.put_bytes(1, count);
        body.put_u8(0);
        body.freeze()
    };
    let key = ApiKey::DeleteGroups as i16;
    assert_eq!(shapes::check(key, 2, &many(1000)), Ok(1000));
    assert!(shapes::check(key, 2, &many(shapes::ELEMENTS_MAX + 1)).unwrap_err().contains("ask for less"));
    // a known tagged field whose content is longer than its size says
    let mut fetch = sample(ApiKey::Fetch, 12, TopicId::from_u128(1), &Bytes::new()).to_vec();
    let tag = fetch.windows(9).position(|w| w == b"\0\x08\x08cluste").unwrap();
    fetch[tag + 1] = 3;
    assert!(shapes::check(ApiKey::Fetch as i16, 12, &fetch).is_err());
}

/// A reader of `bytes` that come in pieces of `piece` bytes, then the end.
fn pieces(bytes: Vec<u8>, piece: usize, frame_bytes_max: usize) -> FrameReader<tokio::io::DuplexStream> {
    let (mut far, near) = tokio::io::duplex(64 * 1024);
    tokio::spawn(async move {
        for part in bytes.chunks(piece) {
            if far.write_all(part).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
    });
    FrameReader::new(near, frame_bytes_max, Arc::new(Semaphore::new(8 << 20)))
}

#[tokio::test]
async fn frames_are_cut_however_their_bytes_arrive() {
    let sizes = [8, 9, 4096, 65_536, 65_537, 300_000, 8, 1_000_000];
    let mut bytes = Vec::new();
    for (number, size) in sizes.iter().enumerate() {
        bytes.extend((*size as i32).to_be_bytes());
        bytes.extend(std::iter::repeat_n(number as u8, *size));
    }
    for piece in [3, 1000, 70_000, usize::MAX] {
        let mut frames = pieces(bytes.clone(), piece, 1_000_000);
        for (number, size) in sizes.iter().enumerate() {
            let frame = frames.next().await.unwrap();
            assert_eq!(frame.bytes.len(), *size);
            assert!(frame.bytes.iter().all(|byte| usize::from(*byte) == number));
            assert_eq!(frame.share.num_permits(), *size);
        }
        assert!(matches!(frames.next().await, Err(End::Closed)));
    }
}

#[tokio::test]
async fn a_claim_costs_no_memory_until_its_bytes_arrive() {
    let claim = 7 << 20;
    let mut bytes = i32::to_be_bytes(claim).to_vec();
    bytes.extend([1; 10]);
    let mut frames = pieces(bytes, 5, 100 << 20);
    let before = ASKED.get();
    assert!(matches!(frames.next().await, Err(End::Refused(reason)) if reason.contains("middle of a request")));
    let asked = ASKED.get() - before;
    assert!(asked < 1 << 20, "asked for {asked} bytes");
}

#[tokio::test]
async fn who_dribbles_is_closed() {
    for length in [50, 200_000] {
        let (mut far, near) = tokio::io::duplex(1024);
        let mut frames = FrameReader::new(near, 1 << 20, Arc::new(Semaphore::new(1 << 20)));
        frames = frames.with_stall(Duration::from_millis(200));
        far.write_all(&i32::to_be_bytes(length)).await.unwrap();
        let dribble = async {
            while far.write_all(&[1]).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let ended = tokio::select! {
            ended = tokio::time::timeout(Duration::from_secs(2), frames.next()) => ended,
            () = dribble => panic!("the reader went away"),
        };
        assert!(matches!(ended, Ok(Err(End::Refused(reason))) if reason.contains("too slowly")), "{length} bytes");
    }
}

#[tokio::test]
async fn who_stalls_or_finds_no_memory_is_closed() {
    let (mut far, near) = tokio::io::duplex(1024);
    let budget = Arc::new(Semaphore::new(100));
    let mut frames = FrameReader::new(near, 1000, budget.clone()).with_stall(Duration::from_millis(50));
    far.write_all(&[0, 0, 0, 50, 1, 2, 3]).await.unwrap();
    assert!(matches!(frames.next().await, Err(End::Refused(reason)) if reason.contains("too slowly")));
    let held = budget.clone().acquire_many_owned(80).await.unwrap();
    let (mut far, near) = tokio::io::duplex(1024);
    let mut frames = FrameReader::new(near, 1000, budget.clone()).with_stall(Duration::from_millis(50));
    far.write_all(&[&[0, 0, 0, 50][..], &[1; 50]].concat()).await.unwrap();
    assert!(matches!(frames.next().await, Err(End::Refused(reason)) if reason.contains("memory for requests")));
    drop(held);
}
