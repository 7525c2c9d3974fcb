//! A shard in a blocking loop, without a runtime and without threads: the read timeout of a TCP stream is the
//! only timer.
//!
//! The example needs a simulated Discord, which `cargo run -- sim --token sim-token` starts:
//! `cargo run -p shardkeeper-proto --example blocking -- ws://127.0.0.1:7979 sim-token`.
//! The real Discord uses TLS: put `rustls::StreamOwned` around the TCP stream.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program speaks to its user")]

use std::error::Error;
use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;
use std::net::TcpStream;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use shardkeeper_proto::shard::Context;
use shardkeeper_proto::{
    Envelope, Grant, IdentifyBudget, IdentifyLimiter, Input, Intents, Opcode, Output, Shard, ShardConfig,
    ShardCount, ShardId, Timings, Token, Wire,
};
use tungstenite::protocol::CloseFrame;
use tungstenite::{Error as WsError, Message, WebSocket};
use url::Url;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(url), Some(token)) = (arguments.next(), arguments.next()) else {
        return Err("usage: blocking GATEWAY_URL TOKEN".into());
    };
    run(url.parse()?, Token::new(&token)?, |event| {
        println!("{}: {} bytes", event.event.as_deref().unwrap_or_default(), event.data.len());
        ControlFlow::Continue(())
    });
    Ok(())
}

/// Runs shard 0 of 1 until `on_event` breaks, or until Discord refuses the bot.
pub fn run(gateway_url: Url, token: Token, mut on_event: impl FnMut(&Envelope<'_>) -> ControlFlow<()>) {
    let timings = Timings::default();
    let machine = ShardConfig {
        token,
        shard: ShardId(0),
        count: ShardCount::new(1).expect("one is not zero"),
        intents: Intents::GUILDS | Intents::GUILD_MESSAGES,
        large_threshold: 50,
        library: "blocking".to_owned(),
        gateway_url,
        wire: Wire::default(),
        timings,
    };
    // `GET /gateway/bot` returns the real daily limit; these are the usual numbers of a small bot.
    let budget = IdentifyBudget::new(Instant::now(), 1000, 1000, Duration::from_secs(86_400), 10);
    let limiter = IdentifyLimiter::new(1, timings.identify_window + timings.identify_margin, budget);
    let mut bot = Bot { machine: Shard::new(machine, None), limiter, socket: None, wakes_at: None };
    bot.feed(Input::Start);
    while !bot.machine.is_ended() {
        // Before each read, because reads on a busy connection never time out. An early `Timeout` has no
        // effect.
        bot.feed(Input::Timeout);
        let Some(message) = bot.read() else { continue };
        match Envelope::split(&message) {
            Ok(envelope) => {
                if bot.feed(Input::Payload(&envelope)) && on_event(&envelope).is_break() {
                    return;
                }
            }
            Err(_) => _ = bot.feed(Input::Malformed),
        }
    }
}

struct Bot {
    machine: Shard,
    limiter: IdentifyLimiter,
    socket: Option<WebSocket<TcpStream>>,
    wakes_at: Option<Instant>,
}

impl Bot {
    /// Passes an input to the state machine and performs its outputs. Returns whether to deliver the input's
    /// payload.
    fn feed(&mut self, input: Input<'_>) -> bool {
        let (shard, mut deliver, mut inputs) = (ShardId(0), false, Vec::new());
        let mut random = || (RandomState::new().hash_one(()) >> 11) as f64 / (1_u64 << 53) as f64;
        self.machine.handle_input(&mut Context::new(Instant::now(), &mut random), input);
        self.wakes_at = loop {
            match (self.machine.poll_output(), &mut self.socket) {
                (Output::Connect(url), socket) => {
                    *socket = connect(&url).inspect_err(|error| eprintln!("{url}: {error}")).ok();
                    inputs.push(if socket.is_some() { Input::Connected } else { Input::ConnectFailed });
                }
                // A write error shows up again at the next read.
                (Output::Send(payload), Some(socket)) => {
                    if payload.is(Opcode::Identify) {
                        self.limiter.sent(shard, Instant::now());
                    }
                    _ = socket.send(Message::text(payload.text));
                }
                (Output::Close(code), Some(socket)) => {
                    _ = socket.close(Some(CloseFrame { code: code.into(), reason: "".into() }));
                }
                (Output::Disconnect, socket) => *socket = None,
                (Output::Enqueue(priority), _) => self.limiter.join(shard, priority),
                (Output::ClaimPermit(priority), _) => self.limiter.claim(shard, priority),
                (Output::LeaveQueue, _) => self.limiter.leave(shard),
                (Output::Deliver { .. }, _) => deliver = true,
                (Output::Changed(change), _) => eprintln!("{change:?}"),
                (Output::Timeout(at), _) => break at,
                // `SessionChanged` is for bots that store sessions; the others are about commands and advice.
                _ => {}
            }
        };
        while let Some(grant) = self.limiter.poll(Instant::now()) {
            inputs.push(match grant {
                Grant::Connect(_) => Input::ConnectGrant,
                Grant::Identify(_, permit) => Input::Permit(permit),
            });
        }
        for input in inputs {
            self.feed(input);
        }
        deliver
    }

    /// Waits for a message until the machine or the limiter has something to do.
    fn read(&mut self) -> Option<Vec<u8>> {
        let now = Instant::now();
        let wakes_at = self.wakes_at.into_iter().chain(self.limiter.wakes_at(now)).min();
        let wait = wakes_at.map_or(Duration::from_secs(1), |at| at.saturating_duration_since(now));
        // The socket rejects a read timeout of zero.
        let wait = wait.max(Duration::from_millis(1));
        let Some(socket) = &mut self.socket else {
            std::thread::park_timeout(wait);
            return None;
        };
        let timeout_set = socket.get_ref().set_read_timeout(Some(wait)).map_err(WsError::from);
        let code = match timeout_set.and_then(|()| socket.read()) {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => return Some(message.into_data().into()),
            Ok(Message::Close(frame)) => frame.map(|frame| frame.code.into()),
            Ok(_) => return None,
            Err(WsError::Io(error))
                if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) =>
            {
                return None;
            }
            Err(_) => None,
        };
        self.socket = None;
        self.feed(Input::Closed { code, corrupt: false, detail: None });
        None
    }
}

fn connect(url: &Url) -> Result<WebSocket<TcpStream>, Box<dyn Error>> {
    let address = *url.socket_addrs(|| None)?.first().ok_or("the host has no address")?;
    let limit = Timings::default().connect;
    let stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    Ok(tungstenite::client(url.as_str(), stream).map_err(|error| error.to_string())?.0)
}
