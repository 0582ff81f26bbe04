//! The network before a name node: it holds a call of Hadoop's RPC when it is told to, before the name node sees it or when it has
//! answered. So a test knows at which step its client stands.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// Where a call is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The name node does not see it.
    Before,
    /// The name node has done it, nobody is told.
    After,
}

/// Connections go through `address`.
pub struct NameProxy {
    pub address: String,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    plan: Mutex<Plan>,
    changed: Condvar,
}

#[derive(Default)]
struct Plan {
    /// The method, how many calls of it pass before, and where it is held.
    next: Option<(&'static str, u32, Hold)>,
    /// The call whose answer is held: the connection's number and the call's.
    answer: Option<(u64, u32)>,
    held: bool,
    seen: Vec<String>,
    connections: u64,
}

impl NameProxy {
    /// A network before the name node at `to`.
    pub fn start(to: String) -> NameProxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(State::default());
        let shared = state.clone();
        // ends with the process
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(node) = TcpStream::connect(&to) else { continue };
                let connection = {
                    let mut plan = shared.plan.lock().unwrap();
                    plan.connections += 1;
                    plan.connections
                };
                let ends = (client.try_clone().unwrap(), node.try_clone().unwrap());
                let (there, back) = (shared.clone(), shared.clone());
                // a client or a name node that hangs up is what tests are about
                thread::spawn(move || drop(calls((client, node), connection, &there)));
                thread::spawn(move || drop(answers(ends, connection, &back)));
            }
        });
        NameProxy { address, state }
    }

    /// Holds a call of this method, of those that come from now on the one after `passing` others.
    pub fn hold(&self, method: &'static str, passing: u32, hold: Hold) {
        let mut plan = self.state.plan.lock().unwrap();
        (plan.next, plan.answer, plan.held) = (Some((method, passing, hold)), None, false);
        plan.seen.clear();
    }

    /// Waits until it is held.
    pub fn wait_until_held(&self) {
        let plan = self.state.plan.lock().unwrap();
        let within = Duration::from_secs(60);
        let (plan, timeout) = self.state.changed.wait_timeout_while(plan, within, |plan| !plan.held).unwrap();
        let seen = plan.seen.clone();
        let next = plan.next;
        drop(plan);
        assert!(!timeout.timed_out(), "no call was held for {next:?}; these were seen: {seen:?}");
    }

    /// What is held is dropped, with its connection.
    pub fn release(&self) {
        let mut plan = self.state.plan.lock().unwrap();
        (plan.next, plan.answer, plan.held) = (None, None, false);
        drop(plan);
        self.state.changed.notify_all();
    }
}

impl State {
    fn hold(&self) {
        let mut plan = self.plan.lock().unwrap();
        plan.held = true;
        self.changed.notify_all();
        drop(self.changed.wait_while(plan, |plan| plan.held).unwrap());
    }
}

/// Passes the client's calls on.
fn calls((mut client, mut node): (TcpStream, TcpStream), connection: u64, state: &State) -> std::io::Result<()> {
    let mut greeting = [0; 7];
    let mut pass = || -> std::io::Result<()> {
        client.read_exact(&mut greeting)?;
        node.write_all(&greeting)?;
        loop {
            let frame = read_frame(&mut client)?;
            let hold = called(&frame).and_then(|(id, method)| {
                let mut plan = state.plan.lock().unwrap();
                plan.seen.push(method.clone());
                let (wanted, passing, hold) = plan.next.filter(|(wanted, ..)| *wanted == method)?;
                if passing > 0 {
                    plan.next = Some((wanted, passing - 1, hold));
                    return None;
                }
                plan.next = None;
                if hold == Hold::After {
                    plan.answer = Some((connection, id));
                }
                Some(hold)
            });
            if hold == Some(Hold::Before) {
                state.hold();
                return Ok(());
            }
            node.write_all(&frame)?;
        }
    };
    let passed = pass();
    let _ = (client.shutdown(Shutdown::Both), node.shutdown(Shutdown::Both));
    passed
}

/// Passes the name node's answers back.
fn answers((mut client, mut node): (TcpStream, TcpStream), connection: u64, state: &State) -> std::io::Result<()> {
    let mut pass = || -> std::io::Result<()> {
        loop {
            let frame = read_frame(&mut node)?;
            let id = answered(&frame);
            let plan = state.plan.lock().unwrap();
            if plan.answer.is_some() && plan.answer == id.map(|id| (connection, id)) {
                drop(plan);
                state.hold();
                return Ok(());
            }
            drop(plan);
            client.write_all(&frame)?;
        }
    };
    let passed = pass();
    let _ = (client.shutdown(Shutdown::Both), node.shutdown(Shutdown::Both));
    passed
}

/// A frame with its length.
fn read_frame(from: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    from.read_exact(&mut frame)?;
    let length = u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize;
    frame.resize(4 + length, 0);
    from.read_exact(&mut frame[4..])?;
    Ok(frame)
}

/// The number of a call and its method: a frame has `RpcRequestHeaderProto`, then `RequestHeaderProto`, each after its length.
fn called(frame: &[u8]) -> Option<(u32, String)> {
    let mut rest = frame.get(4..)?;
    let header = part(&mut rest)?;
    let request = part(&mut rest)?;
    // zigzag
    let id = (field(header, 3)?.0 >> 1) as u32;
    let method = field(request, 1)?.1;
    Some((id, String::from_utf8_lossy(method).into_owned()))
}

/// The number of the call that a frame answers, which `RpcResponseHeaderProto` begins with.
fn answered(frame: &[u8]) -> Option<u32> {
    let mut rest = frame.get(4..)?;
    Some(field(part(&mut rest)?, 1)?.0 as u32)
}

/// Bytes after their length.
fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = varint(rest)? as usize;
    let (part, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(part)
}

/// A field of a message: its number, or its bytes.
fn field(mut message: &[u8], wanted: u64) -> Option<(u64, &[u8])> {
    loop {
        let key = varint(&mut message)?;
        let value = match key & 7 {
            0 => (varint(&mut message)?, &[][..]),
            2 => (0, part(&mut message)?),
            _ => return None,
        };
        if key >> 3 == wanted {
            return Some(value);
        }
    }
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (first, after) = rest.split_first()?;
        *rest = after;
        number |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}
