//! The driver's work on its connection: pacing, opening, writing and dropping it for the machine.
//!
//! Input: the outputs of the machine that concern the connection. Output: the connection, and inputs for the
//! machine.

use std::task::{Context, Poll, Waker};

use shardkeeper_proto::shard::Oddity;
use shardkeeper_proto::{Input, Opcode, Output, Payload};
use shardkeeper_transport::{ConnectError, Connection, Event, Reading};
use tokio::time::Instant;
use url::Url;

use super::core::Core;
use super::driver::Driver;
use super::link::Link;
use crate::identify::TakenPermit;

impl Driver {
    /// Carries out the outputs of the machine that concern the link.
    pub(super) fn carry_out(&mut self) {
        // The list is taken out and put back to reuse its memory; carrying out an output may add more to the
        // end.
        while !self.core.for_link.is_empty() {
            let mut outputs = std::mem::take(&mut self.core.for_link);
            for output in outputs.drain(..) {
                self.carry_out_one(output);
                self.core.show_traffic();
            }
            if self.core.for_link.is_empty() {
                self.core.for_link = outputs;
            }
        }
    }

    fn carry_out_one(&mut self, output: Output) {
        match (output, &mut self.link) {
            (Output::Connect(url), _) => {
                self.core.parts.board.set_url(self.core.parts.incarnation(), &url);
                let wait = self.core.parts.pacer.reserve();
                if wait.is_zero() {
                    self.open(url);
                } else {
                    self.link = Link::Paced { until: Instant::now() + wait, url };
                    if self.core.machine.session().is_none() {
                        self.core.delay_connect(wait);
                    }
                    self.feed(Input::ConnectDelayed(wait));
                }
            }
            (Output::Disconnect, _) => {
                self.core.permit = None;
                self.core.receipts.disconnected();
                self.link = Link::Down;
            }
            (Output::Send(payload), Link::Up(connection)) => {
                if let Some(tap) = &self.core.parts.tap {
                    tap.sent(self.core.parts.shard.id, &payload);
                }
                self.core.note_sent(&payload);
                let permit = self.core.permit.as_mut().filter(|_| payload.is(Opcode::Identify));
                let identifies = permit.map(TakenPermit::spend).is_some();
                // The result can be ignored: a connection whose buffer is full reports that as its end.
                let _ = self.codec.enqueue(payload, connection);
                if identifies {
                    // Write the Identify before anything can end this driver, so that Discord receives every
                    // Identify that was counted.
                    let written =
                        connection.poll_next(&mut Context::from_waker(Waker::noop()), Reading::Paused);
                    if let Poll::Ready(Event::Flushed) = written {
                        self.core.flushed();
                    }
                }
            }
            (Output::CommandSent(id), _) => self.core.receipts.sent(id),
            (Output::Close(code), Link::Up(connection)) => {
                let _ = connection.enqueue_close(code, "");
            }
            // The connection has ended in the meantime; the machine is about to receive that as an input.
            _ => {}
        }
    }

    pub(super) fn open(&mut self, url: Url) {
        let connector = self.core.parts.connector.clone();
        self.link = Link::Opening(Box::pin(async move { connector.connect(&url).await.map(Box::new) }));
    }

    pub(super) fn opened(&mut self, opened: Result<Box<Connection>, ConnectError>) {
        match opened {
            Ok(connection) => {
                self.link = Link::Up(connection);
                self.feed(Input::Connected);
            }
            Err(error) => {
                self.link = Link::Down;
                let retry_after = error.retry_after();
                let error = crate::chain::chain(&error);
                let shard = self.core.parts.shard;
                if self.core.parts.warnings.admit(shard) {
                    tracing::warn!(shard.id = shard.id.0, error, ?retry_after, "could not connect");
                } else {
                    tracing::debug!(shard.id = shard.id.0, error, ?retry_after, "could not connect");
                }
                self.feed(match retry_after {
                    Some(retry_after) => Input::ConnectRefused { retry_after },
                    None => Input::ConnectFailed,
                });
                self.core.parts.board.set_reason(self.core.parts.incarnation(), error);
            }
        }
    }

    /// Reports uncompressed payloads once per driver; the log shows the report once for all shards.
    pub(super) fn log_uncompressed(&mut self) {
        if let Link::Up(connection) = &self.link
            && connection.is_uncompressed()
            && !std::mem::replace(&mut self.uncompressed_reported, true)
        {
            self.core.parts.oddities.log_once(self.core.parts.shard, Oddity::Uncompressed);
        }
    }
}

impl Core {
    /// Notes what outlasts the command: a call, or an answer that is still to come.
    fn note_sent(&self, payload: &Payload) {
        if payload.is(Opcode::VoiceStateUpdate) {
            self.parts.calls.sent(self.parts.shard, &payload.text);
        }
        let asks = [Opcode::RequestGuildMembers, Opcode::RequestSoundboardSounds, Opcode::RequestChannelInfo];
        if asks.into_iter().any(|opcode| payload.is(opcode)) {
            self.parts.board.asked(Instant::now().into_std());
        }
    }
}
