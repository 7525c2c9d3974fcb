//! `check-report FILE SHARDS`: checks the report of a demo.
//!
//! The demo judges itself by its exit code; this check uses only the numbers in the report.

#![allow(clippy::print_stdout, reason = "a program speaks to its user")]

use std::error::Error;

use serde_json::Value;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(file), Some(shards)) = (arguments.next(), arguments.next()) else {
        return Err("usage: check-report FILE SHARDS".into());
    };
    let shards: u64 = shards.parse()?;
    let report: Value = serde_json::from_slice(&std::fs::read(file)?)?;
    let number = |field: &str| report[field].as_u64().ok_or(format!("{field} is no number"));
    let list = |field: &str| report[field].as_array().ok_or(format!("{field} is no list"));
    let mut wrong = Vec::new();
    let mut expect = |what: &str, holds: bool| {
        if !holds {
            wrong.push(what.to_owned());
        }
    };

    expect("shards", number("shards")? == shards);
    expect(
        "lost, duplicated or out of order",
        ["lost", "duplicated", "out_of_order"].iter().all(|field| report[*field] == 0),
    );
    expect("violations", list("violations")?.is_empty());
    expect("delivered is not sent", number("delivered")? == number("sent")?);
    expect("nothing was sent", number("sent")? > 1000);

    let faults = list("faults")?;
    let kinds: Vec<&str> = faults.iter().filter_map(|fault| fault["drill"].as_str()).collect();
    expect("not every kind of fault", kinds == ["zombie", "reconnect", "panic", "invalid_session"]);
    let invalid = faults.iter().filter(|fault| fault["drill"] == "invalid_session").count() as u64;
    // A reshard needs an Identify for each new shard, and leaves the new shards only.
    let reshard = &report["reshard"];
    let new_shards = reshard["to"].as_u64();
    expect(
        "identifies are not shards and invalid sessions",
        number("identifies")? == shards + new_shards.unwrap_or(0) + invalid,
    );
    expect(
        "the reshard was not finished",
        reshard.is_null() || reshard["done"] == reshard["groups"] && reshard["took_ms"].is_u64(),
    );
    expect("too few resumes", number("resumes")? >= faults.len() as u64 - invalid);
    for fault in faults {
        let resumed = fault["recovery"]["resumed"].as_bool();
        expect("a fault did not heal as it should", resumed == Some(fault["drill"] != "invalid_session"));
    }
    let cadence = &report["cadence"];
    let window = cadence["window_ms"].as_u64().ok_or("the cadence has no window")?;
    expect(
        "too many identifies in a window",
        cadence["most_in_a_window"].as_u64() <= report["max_concurrency"].as_u64(),
    );
    expect(
        "two identifies of one key in a window",
        cadence["closest_of_one_key_ms"].as_u64().is_none_or(|gap| gap >= window),
    );
    let states = list("shard_states")?;
    expect("a shard's state is missing", states.len() as u64 == new_shards.unwrap_or(shards));
    expect("a shard was not ready at the end", states.iter().all(|state| state["phase"] == "ready"));

    if wrong.is_empty() {
        println!("the report of {shards} shards is as it should be");
        Ok(())
    } else {
        Err(format!("{}: {report:#}", wrong.join(", ")).into())
    }
}
