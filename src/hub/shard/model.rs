//! The engine as a model: the meaning of the three scripts that a real engine runs. Tests run shards against the model,
//! and compare the scripts with it.

use std::collections::BTreeMap;

use super::data::{Attach, Attached, Beat, Cluster, Fields, Key, Message, NUMBER, NodeId, Tx, Verdict};

/// The time without a beat after which an attachment is dead, in ms.
pub const TTL: u64 = 10_000;
/// The interval between the beats of an attachment, in ms.
pub const INTERVAL: u64 = 2_000;
/// The time without any beat after which the engine, or the whole machine, was away, in ms. It counts as one interval, for ends
/// of attachments and for the age of the epoch.
pub const OUTAGE: u64 = 3_000;
/// The time after an outage of more than [`TTL`] in which no attachment is declared dead, in ms.
pub const QUIET: u64 = TTL + 5_000;
/// The time after the beginning of an epoch in which shards assert what the engine lost, in ms.
pub const YOUNG: u64 = 3_000;
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Row {
    op: u64,
    beat: u64,
    /// The messages of transactions in the inbox, since its beginning.
    placed: u64,
    inbox: Vec<(u64, Message)>,
}

/// See the module. Times are in ms, by the engine's clock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Model {
    epoch: Option<String>,
    since: u64,
    number: u64,
    beat: u64,
    quiet: u64,
    nodes: BTreeMap<NodeId, Row>,
    keys: BTreeMap<Key, Fields>,
}

impl Model {
    /// Executes the script `attach`.
    pub fn attach(&mut self, now: u64, attach: &Attach) -> Attached {
        self.note_outage(now);
        let is_lost = attach.is_rewound && attach.epoch == self.epoch;
        if self.epoch.is_none() || is_lost {
            (self.epoch, self.since) = (Some(attach.node.0.clone()), now);
        }
        if let Some(old) = &attach.old {
            self.fence(old, now + TTL);
        }
        self.nodes.insert(attach.node.clone(), Row { beat: now, ..Row::default() });
        let epoch = self.epoch.clone().unwrap_or_default();
        Attached { node: attach.node.clone(), epoch, is_young: now.saturating_sub(self.since) < YOUNG }
    }

    fn note_outage(&mut self, now: u64) {
        let silence = if self.beat > 0 { now.saturating_sub(self.beat) } else { 0 };
        if silence > OUTAGE {
            let uncounted = silence - INTERVAL;
            self.nodes.values_mut().for_each(|row| row.beat += uncounted);
            self.since += uncounted;
        }
        if silence > TTL {
            self.quiet = now + QUIET;
        }
        self.beat = now;
        // The clock may have been set back.
        self.quiet = self.quiet.min(now + QUIET);
        self.nodes.values_mut().for_each(|row| row.beat = row.beat.min(now));
    }

    /// Ends an attachment; its names may be given back from `at`.
    fn fence(&mut self, node: &NodeId, at: u64) {
        self.nodes.remove(node);
        if self.keys.contains_key(&Key::names(node)) {
            self.keys.entry(Key::dead()).or_default().insert(node.0.clone(), at.to_string());
        }
    }

    /// Executes the script `beat`.
    pub fn beat(&mut self, now: u64, beat: &Beat) -> (Verdict, Cluster) {
        let row = self.nodes.get(&beat.node).filter(|_| self.epoch.as_ref() == Some(&beat.epoch));
        let verdict = match row {
            Some(row) if row.op < beat.op || row.placed < beat.place => Verdict::Rewound,
            Some(_) => Verdict::Taken,
            None => Verdict::Fenced,
        };
        if verdict != Verdict::Taken {
            return (verdict, Cluster::default());
        }
        self.note_outage(now);
        self.nodes.entry(beat.node.clone()).and_modify(|row| row.beat = now);
        if now > self.quiet {
            let is_dead = |row: &Row| now > row.beat + TTL;
            let dead: Vec<NodeId> =
                self.nodes.iter().filter(|(_, row)| is_dead(row)).map(|(node, _)| node.clone()).collect();
            dead.iter().for_each(|node| self.fence(node, now));
        }
        let dead = self.keys.get(&Key::dead()).into_iter().flatten();
        let dead = dead.filter(|(_, at)| at.parse::<u64>().is_ok_and(|at| at <= now || at > now + TTL));
        let dead = dead.map(|(node, _)| NodeId(node.clone())).collect();
        (verdict, Cluster { dead, is_first: self.nodes.keys().next() == Some(&beat.node) })
    }

    /// Executes the script `tx`.
    pub fn tx(&mut self, node: &NodeId, epoch: &str, tx: &Tx) -> Verdict {
        let row = self.nodes.get_mut(node).filter(|_| self.epoch.as_deref() == Some(epoch));
        let Some(row) = row else { return Verdict::Fenced };
        if tx.op <= row.op {
            return Verdict::Taken;
        }
        if tx.op > row.op + 1 {
            return Verdict::Rewound;
        }
        row.op = tx.op;
        let field = |key: &Key, field: &str| self.keys.get(key).and_then(|fields| fields.get(field));
        let holds = |(key, name, value): &(Key, String, String)| {
            field(key, name).map(String::as_str).unwrap_or_default() == value
        };
        let is_done = tx.guards.iter().all(holds);
        if is_done && !tx.writes.is_empty() {
            self.number += 1;
            self.write(tx);
        }
        let is_read = !is_done || tx.writes.is_empty();
        let read = |key: &Key| (key.clone(), self.keys.get(key).cloned().unwrap_or_default());
        let reads = if is_read { tx.reads.iter().map(read).collect() } else { BTreeMap::new() };
        if is_done {
            for (to, body) in &tx.sends {
                self.place(to, Message::Frame(self.number, body.clone()));
            }
        }
        self.place(node, Message::Done { op: tx.op, is_done, number: self.number, reads });
        Verdict::Taken
    }

    /// Appends a message of a transaction; an inbox that does not exist receives nothing.
    fn place(&mut self, to: &NodeId, message: Message) {
        if let Some(row) = self.nodes.get_mut(to) {
            row.placed += 1;
            row.inbox.push((row.placed, message));
        }
    }

    fn write(&mut self, tx: &Tx) {
        for (key, field, value) in &tx.writes {
            if field.is_empty() {
                self.keys.remove(key);
                continue;
            }
            let fields = self.keys.entry(key.clone()).or_default();
            let value = if value == NUMBER { self.number.to_string() } else { value.clone() };
            if value.is_empty() {
                fields.remove(field);
            } else {
                fields.insert(field.clone(), value);
            }
            if fields.is_empty() {
                self.keys.remove(key);
            }
        }
    }

    /// Appends a message outside of transactions; an inbox that does not exist receives nothing.
    pub fn send(&mut self, to: &NodeId, body: String) {
        if let Some(row) = self.nodes.get_mut(to) {
            row.inbox.push((0, Message::Frame(0, body)));
        }
    }

    /// Returns the message at a place of an inbox.
    pub fn read(&self, node: &NodeId, place: usize) -> Option<(u64, Message)> {
        self.nodes.get(node)?.inbox.get(place).cloned()
    }

    /// Returns the number of messages in an inbox.
    pub fn length(&self, node: &NodeId) -> usize {
        self.nodes.get(node).map_or(0, |row| row.inbox.len())
    }

    /// Returns the keys with their content, in order.
    pub fn dump(&self) -> &BTreeMap<Key, Fields> {
        &self.keys
    }
}
