//! A network between the server and an HTTP service that fails when it is told to: before a request, after it, or for good.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is answered 503, and never reaches the service.
    Refused,
    /// The connection ends before the service sees it.
    Cut,
    /// The service does what it says, and the connection ends before its answer.
    Lost,
    /// The service answers, a second later.
    Late,
    /// It is held until [`Proxy::release`], and never reaches the service.
    HeldBefore,
    /// The service does what it says; the answer is held until [`Proxy::release`] and lost.
    HeldAfter,
}

/// Which request: its method, and a part of its path, its query or its headers, with or without its escapes.
pub type Which = (&'static str, &'static str);

/// Requests go one per connection through `address`.
pub struct Proxy {
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
    away: bool,
    faults: VecDeque<(Which, Fault)>,
    held: bool,
    seen: Vec<String>,
}

impl Proxy {
    /// A proxy before the service at `to`.
    pub fn start(to: String) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(State::default());
        let shared = state.clone();
        // ends with the process
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (state, to) = (shared.clone(), to.clone());
                // a client or a service that hangs up is what tests are about
                thread::spawn(move || drop(pass(client, &to, &state)));
            }
        });
        Proxy { address, state }
    }

    /// Whether the service cannot be reached at all.
    pub fn away(&self, away: bool) {
        self.state.plan.lock().unwrap().away = away;
    }

    /// The next requests that these name fail, in this order.
    pub fn fail(&self, faults: &[(Which, Fault)]) {
        self.state.plan.lock().unwrap().faults.extend(faults);
    }

    /// How many of the faults have not happened yet.
    pub fn left(&self) -> usize {
        self.state.plan.lock().unwrap().faults.len()
    }

    /// Waits until a request is held.
    pub fn wait_until_held(&self) {
        let plan = self.state.plan.lock().unwrap();
        let within = Duration::from_secs(60);
        let (plan, timeout) = self.state.changed.wait_timeout_while(plan, within, |plan| !plan.held).unwrap();
        let last = plan.seen.len().saturating_sub(20);
        assert!(!timeout.timed_out(), "no request was held: {:?}; the last: {:#?}", plan.faults, &plan.seen[last..]);
    }

    /// Lets what is held go on.
    pub fn release(&self) {
        self.state.plan.lock().unwrap().held = false;
        self.state.changed.notify_all();
    }
}

fn pass(mut client: TcpStream, to: &str, state: &State) -> std::io::Result<()> {
    let Some(request) = read_request(&mut client)? else { return Ok(()) };
    let fault = {
        let mut plan = state.plan.lock().unwrap();
        if plan.away {
            return Ok(());
        }
        let head = String::from_utf8_lossy(&request[..request.len().min(4096)]).into_owned();
        plan.seen.push(head.lines().next().unwrap_or_default().to_owned());
        let plain = unescaped(&head);
        let named = |(method, part): Which| head.starts_with(method) && (head.contains(part) || plain.contains(part));
        plan.faults.pop_front_if(|(which, _)| named(*which)).map(|(_, fault)| fault)
    };
    match fault {
        Some(Fault::Refused) => {
            return client.write_all(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
        Some(Fault::Cut) => return Ok(()),
        Some(Fault::HeldBefore) => {
            hold(state);
            return Ok(());
        }
        Some(Fault::Late) => thread::sleep(Duration::from_secs(1)),
        Some(Fault::Lost | Fault::HeldAfter) | None => {}
    }
    let mut service = TcpStream::connect(to)?;
    service.write_all(&request)?;
    let mut answer = Vec::new();
    service.read_to_end(&mut answer)?;
    match fault {
        Some(Fault::Lost) => return Ok(()),
        Some(Fault::HeldAfter) => {
            hold(state);
            return Ok(());
        }
        _ => {}
    }
    client.write_all(&answer)
}

/// `%2F` is a slash again, and so on.
fn unescaped(text: &str) -> String {
    let mut parts = text.split('%');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if byte.is_ascii() => plain.extend([char::from(byte)].into_iter().chain(part[2..].chars())),
            _ => plain.extend(["%", part]),
        }
    }
    plain
}

fn hold(state: &State) {
    let mut plan = state.plan.lock().unwrap();
    plan.held = true;
    state.changed.notify_all();
    drop(state.changed.wait_while(plan, |plan| plan.held).unwrap());
}

/// One request, told to end its connection.
fn read_request(client: &mut TcpStream) -> std::io::Result<Option<Vec<u8>>> {
    client.set_read_timeout(Some(Duration::from_secs(60)))?;
    let (mut bytes, mut buffer) = (Vec::new(), [0; 65_536]);
    let head = loop {
        if let Some(at) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
            break at + 4;
        }
        match client.read(&mut buffer)? {
            0 => return Ok(None),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let header = |line: &str, name: &str| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    };
    let length = text.lines().find_map(|line| header(line, "content-length")?.parse().ok()).unwrap_or(0);
    while bytes.len() < head + length {
        match client.read(&mut buffer)? {
            0 => return Ok(None),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
    let lines = text.trim_end().lines().filter(|line| header(line, "connection").is_none());
    let mut request: Vec<u8> = lines.flat_map(|line| [line.as_bytes(), b"\r\n"].concat()).collect();
    request.extend_from_slice(b"Connection: close\r\n\r\n");
    request.extend_from_slice(&bytes[head..]);
    Ok(Some(request))
}
