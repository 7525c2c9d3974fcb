//! Tests of the conformance checks: they accept correct gates, and name the fault of gates that are broken on
//! purpose.

use std::collections::HashMap;
use std::future::pending;
use std::sync::Mutex;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::time::sleep_until;

use super::*;
use crate::gate::LocalGate;

const WINDOW: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Each process has a gate of its own.
    NotShared,
    WindowIgnored,
    CountsFromGiving,
    /// Knows the window and nothing else.
    GivesTwo,
    OneKeyForAll,
    /// The window of one key closes all keys.
    OneWindowForAll,
    AKeyPerShard,
    UnspentCounts,
    UnspentIsLost,
    LostPlace,
    ForgetsSomebody,
    /// Keeps the first number of keys forever.
    SameKeysForEver,
    /// Treats the keys of each number separately.
    KeysOfEachNumber,
}

#[derive(Clone)]
struct BrokenGate {
    fault: Fault,
    gate: LocalGate,
    others: Arc<Mutex<HashMap<u32, LocalGate>>>,
}

/// Runs a function when it is dropped.
struct Finally<F: FnMut()>(F);

impl<F: FnMut()> Drop for Finally<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Closes the key, if it is free.
fn spend(gate: &LocalGate, request: IdentifyRequest) {
    if let Some(Ok(pass)) = gate.admit(request).now_or_never() {
        pass.spent();
    }
}

impl IdentifyGate for BrokenGate {
    fn admit(&self, mut request: IdentifyRequest) -> BoxFuture<'_, Result<IdentifyPass, GateError>> {
        Box::pin(async move {
            let window = request.window;
            match self.fault {
                Fault::NotShared | Fault::UnspentCounts | Fault::UnspentIsLost | Fault::LostPlace => {}
                Fault::CountsFromGiving | Fault::GivesTwo | Fault::OneWindowForAll => {}
                Fault::WindowIgnored => request.window = Duration::ZERO,
                Fault::OneKeyForAll => request.shard = ShardId(0),
                Fault::AKeyPerShard => request.max_concurrency = u32::MAX,
                // The check for starvation makes ten requests, and this one of them never gets a pass.
                Fault::ForgetsSomebody if request.shard == ShardId(9 + KEYS) => return pending().await,
                Fault::ForgetsSomebody => {}
                Fault::SameKeysForEver => request.max_concurrency = KEYS,
                Fault::KeysOfEachNumber => {
                    let gate =
                        self.others.lock().unwrap().entry(request.max_concurrency).or_default().clone();
                    return gate.admit(request).await;
                }
            }
            let gate = self.gate.clone();
            match self.fault {
                Fault::LostPlace => {
                    let (sender, receiver) = oneshot::channel();
                    tokio::spawn(async move {
                        if let Err(pass) = sender.send(gate.admit(request).await) {
                            std::mem::forget(pass);
                        }
                    });
                    receiver.await.expect("the task sends")
                }
                Fault::CountsFromGiving => {
                    let pass = gate.admit(request).await?;
                    let (over, is_over) = oneshot::channel();
                    tokio::spawn(async move {
                        let given = Instant::now();
                        if is_over.await.is_ok() {
                            sleep_until(given + window).await;
                        }
                        drop(pass);
                    });
                    Ok(IdentifyPass::new(move || _ = over.send(())))
                }
                Fault::GivesTwo => {
                    drop(gate.admit(request.clone()).await?);
                    Ok(IdentifyPass::new(move || spend(&gate, request)))
                }
                Fault::OneWindowForAll => {
                    let pass = gate.admit(request.clone()).await?;
                    let mut all = request.clone();
                    all.shard = ShardId(KEYS - 1);
                    drop(gate.admit(all.clone()).await?);
                    Ok(IdentifyPass::new(move || {
                        spend(&gate, all);
                        pass.spent();
                    }))
                }
                Fault::UnspentCounts => {
                    let mut pass = Some(gate.admit(request).await?);
                    let spend = Finally(move || pass.take().into_iter().for_each(IdentifyPass::spent));
                    Ok(IdentifyPass::new(move || drop(spend)))
                }
                Fault::UnspentIsLost => {
                    let pass = std::mem::ManuallyDrop::new(gate.admit(request).await?);
                    Ok(IdentifyPass::new(move || std::mem::ManuallyDrop::into_inner(pass).spent()))
                }
                _ => gate.admit(request).await,
            }
        })
    }
}

async fn verdict(fault: Fault) -> String {
    let gate = BrokenGate { fault, gate: LocalGate::default(), others: Arc::default() };
    let make = || -> Arc<dyn IdentifyGate> {
        match fault {
            Fault::NotShared => Arc::new(LocalGate::default()),
            _ => Arc::new(gate.clone()),
        }
    };
    check(make, WINDOW).await.expect_err("it is broken").to_string()
}

#[tokio::test(start_paused = true)]
async fn gw_170_174_the_local_gate_conforms() {
    let gate = LocalGate::default();
    check(|| Arc::new(gate.clone()), WINDOW).await.unwrap();
    // The checks also pass on a gate that was in use before.
    check(|| Arc::new(gate.clone()), WINDOW / 3).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn broken_gates_are_named_by_what_they_break() {
    let none = "the window was not kept: a pass came 0ns after";
    for (fault, named) in [
        (Fault::NotShared, none),
        (Fault::WindowIgnored, none),
        (Fault::CountsFromGiving, "the window was not kept: a pass came 2.5"),
        (Fault::AKeyPerShard, none),
        (Fault::GivesTwo, "a key had two passes"),
        (Fault::UnspentCounts, "an unspent pass did not return"),
        (Fault::UnspentIsLost, "an unspent pass did not return"),
        (Fault::OneKeyForAll, "keys are not independent"),
        (Fault::OneWindowForAll, "keys are not independent"),
        (Fault::LostPlace, "a dropped future kept its place"),
        (Fault::ForgetsSomebody, "a request got no pass within 100s"),
        (Fault::SameKeysForEver, "a change of max_concurrency was ignored: a pass came before"),
        (Fault::KeysOfEachNumber, "a change of max_concurrency was ignored: a pass came before"),
    ] {
        let found = verdict(fault).await;
        assert!(found.starts_with(named), "{fault:?}: {found}");
    }
}
