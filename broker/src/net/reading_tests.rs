//! How much of what comes off the wire is moved: reads tell for how many bytes they had room.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::Semaphore;

use super::frame::FrameReader;

/// Gives these bytes, as many as each read has room for, at most `most`.
struct Rooms {
    bytes: Vec<u8>,
    at: usize,
    most: usize,
    seen: Arc<Mutex<Vec<usize>>>,
}

impl AsyncRead for Rooms {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = into.remaining().min(self.bytes.len() - self.at).min(self.most);
        self.seen.lock().push(into.remaining());
        into.put_slice(&self.bytes[self.at..self.at + read]);
        self.at += read;
        Poll::Ready(Ok(()))
    }
}

/// Reads frames of these sizes, each filled with its number; gives the room of each read that the last of them took.
async fn rooms(sizes: &[usize], most: usize) -> Vec<usize> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut bytes = Vec::new();
    for (number, size) in sizes.iter().enumerate() {
        bytes.extend((*size as i32).to_be_bytes());
        bytes.extend(std::iter::repeat_n(number as u8, *size));
    }
    let input = Rooms { bytes, at: 0, most, seen: seen.clone() };
    let mut frames = FrameReader::new(input, 1 << 20, Arc::new(Semaphore::new(8 << 20)));
    let mut held = Vec::new();
    for (number, size) in sizes.iter().enumerate() {
        seen.lock().clear();
        let frame = frames.next().await.unwrap();
        assert_eq!(frame.bytes.len(), *size);
        assert!(frame.bytes.iter().all(|byte| *byte == number as u8));
        held.push(frame); // as the lane may
    }
    seen.lock().clone()
}

#[tokio::test]
async fn a_large_request_after_another_is_read_to_where_it_stays() {
    let all = usize::MAX;
    assert_eq!(
        rooms(&[300_000], all).await,
        [4_096, 61_444, 196_608, 37_856],
        "64 KiB are there before it is believed"
    );
    assert_eq!(rooms(&[300_000, 300_000], all).await, [4_096, 295_908], "all but the first read stays where it is");
    assert_eq!(rooms(&[300_000, 100, 300_000], all).await, [61_548, 234_464], "a small one between them");
}

#[tokio::test]
async fn small_requests_share_a_piece_of_memory() {
    assert_eq!(rooms(&[100; 8], 104).await, [4_096 - 7 * 104]);
    assert_eq!(rooms(&[100; 31], 104).await, [4_096], "what is left would be too little for one");
}
