//! The map from hash slots to the servers of a cluster, and the replies that it is made from.
//!
//! Sends nothing, and decides nothing: see `topology`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use redis::RedisResult;

use super::errors::unexpected_reply;
use super::resp::Reply;
use super::topology::{Place, Server};

/// How many hash slots a cluster has.
const SLOTS: u16 = 16_384;
/// In place of an index, for a slot that no server has.
const NOBODY: u16 = u16::MAX;

/// The hash slot of a key that holds no brace.
pub(super) fn slot(key: &str) -> u16 {
    crc16::State::<crc16::XMODEM>::calculate(key.as_bytes()) % SLOTS
}

/// The host that a server names. Without a host, it is the one of the server that `said` it; `?` is a host that it doesn't know.
pub(super) fn known_host(named: Option<&str>, said_by: &str) -> Option<String> {
    match named {
        None | Some("" | "0.0.0.0" | "::") => Some(said_by.to_owned()),
        Some("?") => None,
        Some(host) => Some(host.to_owned()),
    }
}

/// A range of slots, and the servers that have it: the primary first, then its replicas.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shard {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) places: Vec<Place>,
}

/// Reads the reply of CLUSTER SLOTS. A range whose primary isn't known is left out.
pub(super) fn shards(reply: Reply, said_by: &str) -> RedisResult<Vec<Shard>> {
    let mut shards = Vec::new();
    for range in reply.array()? {
        let mut parts = range?.array()?.into_iter();
        let (Some(first), Some(last), Some(primary)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(unexpected_reply());
        };
        let (first, last) = (number(&first?)?, number(&last?)?);
        if first > last || last >= SLOTS {
            return Err(unexpected_reply());
        }
        let Some(primary) = place(primary?, said_by)? else { continue };
        let mut places = vec![primary];
        for replica in parts {
            places.extend(place(replica?, said_by)?);
        }
        shards.push(Shard { first, last, places });
    }
    Ok(shards)
}

/// The server's own config epoch and slots by its reply to CLUSTER NODES, in order; `None` while one of them is migrating.
pub(super) fn own_epoch_and_slots(nodes: &str) -> Option<(u64, Vec<u16>)> {
    const BEFORE_SLOTS: usize = 8;
    const EPOCH: usize = 6;
    let own = nodes.lines().find(|line| line.split(' ').nth(2).is_some_and(|flags| flags.contains("myself")))?;
    let epoch = own.split(' ').nth(EPOCH)?.parse().ok()?;
    let mut slots = Vec::new();
    for range in own.split_whitespace().skip(BEFORE_SLOTS) {
        // A migrating slot is in brackets, which are no number.
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        slots.extend(first.parse::<u16>().ok()?..=last.parse().ok()?);
    }
    slots.sort_unstable();
    Some((epoch, slots))
}

fn place(server: Reply, said_by: &str) -> RedisResult<Option<Place>> {
    let mut parts = server.array()?.into_iter();
    let (Some(host), Some(port)) = (parts.next(), parts.next()) else {
        return Err(unexpected_reply());
    };
    let host = host?.bytes()?;
    let host = host.as_deref().map(std::str::from_utf8).transpose().map_err(|_| unexpected_reply())?;
    let port = number(&port?)?;
    Ok(known_host(host, said_by).map(|host| Place { host, port }))
}

fn number(reply: &Reply) -> RedisResult<u16> {
    u16::try_from(reply.integer()?).map_err(|_| unexpected_reply())
}

/// The slots that have another server now.
#[derive(Default)]
pub(in crate::backend) struct Moved {
    pub(super) have_any: bool,
    /// Those whose server may be a replica that was promoted. A server that had slots before is none: it has got more of them by a
    /// migration, which loses nothing.
    pub(super) taken_over: HashSet<u16>,
    /// The earliest time at which one of the servers of these before was last known to answer.
    pub(super) last_seen: Option<Instant>,
    /// The servers that have taken over.
    followers: HashSet<*const Server>,
}

/// The servers of a cluster, and which of them has which slot.
pub(super) struct SlotMap {
    /// Replicas too: they can be asked for the slots.
    pub(super) nodes: Vec<Arc<Server>>,
    /// For each slot an index of `nodes`, or [`NOBODY`].
    owners: Vec<u16>,
    /// The servers that had slots when all slots were last asked for. Redirections since then have added none.
    known_primaries: Vec<Arc<Server>>,
    /// Servers without a slot yet that keys are migrating to.
    importing: Vec<Arc<Server>>,
}

impl SlotMap {
    /// Before any server was asked.
    pub(super) fn unknown() -> Self {
        Self {
            nodes: Vec::new(),
            owners: vec![NOBODY; usize::from(SLOTS)],
            known_primaries: Vec::new(),
            importing: Vec::new(),
        }
    }

    /// A single server has all slots.
    pub(super) fn of_one(server: Arc<Server>) -> Self {
        Self {
            nodes: vec![server],
            owners: vec![0; usize::from(SLOTS)],
            known_primaries: Vec::new(),
            importing: Vec::new(),
        }
    }

    /// The map of these `shards`, with a server from `node` for each place that has none in the map. A place that gets none is
    /// left out.
    pub(super) fn new(shards: &[Shard], mut node: impl FnMut(&Place) -> Option<Arc<Server>>) -> Self {
        let mut map = Self::unknown();
        for Shard { first, last, places } in shards {
            for (position, place) in places.iter().enumerate() {
                let Some(node) = map.node(place).or_else(|| node(place)) else { continue };
                let index = map.index(node);
                if position == 0 {
                    map.owners[usize::from(*first)..=usize::from(*last)].fill(index);
                }
            }
        }
        map
    }

    pub(super) fn is_known(&self) -> bool {
        !self.nodes.is_empty()
    }

    pub(super) fn owner(&self, slot: u16) -> Option<&Arc<Server>> {
        self.nodes.get(usize::from(self.owners[usize::from(slot)]))
    }

    pub(super) fn node(&self, place: &Place) -> Option<Arc<Server>> {
        self.nodes.iter().find(|node| node.place == *place).cloned()
    }

    /// Sets the slot's server.
    pub(super) fn moved(&mut self, slot: u16, node: Arc<Server>) -> Moved {
        let mut moved = Moved::default();
        self.note_move(&mut moved, slot, Some(&node));
        self.owners[usize::from(slot)] = self.index(node);
        moved
    }

    /// Adds a slot to those that have moved, if `after` is another server than here.
    fn note_move(&self, moved: &mut Moved, slot: u16, after: Option<&Arc<Server>>) {
        let before = self.owner(slot);
        if before.map(Arc::as_ptr) == after.map(Arc::as_ptr) {
            return;
        }
        moved.have_any = true;
        let had_slots = |after: &Arc<Server>| self.known_primaries.iter().any(|known| Arc::ptr_eq(known, after));
        if self.known_primaries.is_empty() || after.is_none_or(had_slots) {
            return;
        }
        moved.taken_over.insert(slot);
        let seen = before.and_then(|server| server.shared.seen());
        if let (Some(seen), Some(after)) = (seen, after)
            && moved.followers.insert(Arc::as_ptr(after))
        {
            after.shared.follows(seen);
        }
        let last_seen = before.and_then(|server| server.shared.last_seen());
        moved.last_seen = moved.last_seen.into_iter().chain(last_seen).min();
    }

    /// Replaces the whole map.
    pub(super) fn replace(&mut self, other: Self) -> Moved {
        let before = std::mem::replace(self, other);
        let primaries = self.primaries();
        for node in &before.nodes {
            if !primaries.iter().any(|primary| Arc::ptr_eq(primary, node)) {
                // No command goes to this server any more, so nothing else would close its breaker.
                node.breaker.answered();
            }
        }
        let mut moved = Moved::default();
        (0..SLOTS).for_each(|slot| before.note_move(&mut moved, slot, self.owner(slot)));
        let had_slots = before.primaries();
        had_slots.iter().filter(|node| !primaries.iter().any(|primary| Arc::ptr_eq(primary, node))).for_each(|node| {
            node.shared.is_followed();
        });
        self.known_primaries = primaries;
        moved
    }

    /// Notes that keys are migrating to this server, and returns whether it had none before.
    pub(super) fn imports(&mut self, node: Arc<Server>) -> bool {
        let index = self.index(node.clone());
        let is_new = !self.owners.contains(&index) && !self.importing.iter().any(|known| Arc::ptr_eq(known, &node));
        if is_new {
            self.importing.push(node);
        }
        is_new
    }

    /// The servers that keys may be at.
    pub(super) fn data_nodes(&self) -> Vec<Arc<Server>> {
        let mut nodes = self.primaries();
        nodes.extend_from_slice(&self.importing);
        nodes
    }

    /// The servers that have slots, in the order of their places.
    pub(super) fn primaries(&self) -> Vec<Arc<Server>> {
        let with_slots = (0..).zip(&self.nodes).filter(|(index, _)| self.owners.contains(index));
        let mut primaries: Vec<_> = with_slots.map(|(_, node)| node.clone()).collect();
        primaries.sort_by(|a, b| a.place.cmp(&b.place));
        primaries
    }

    /// The slots of a server, in order.
    pub(super) fn slots_of(&self, node: &Arc<Server>) -> Vec<u16> {
        (0..SLOTS).filter(|slot| self.owner(*slot).is_some_and(|owner| Arc::ptr_eq(owner, node))).collect()
    }

    fn index(&mut self, node: Arc<Server>) -> u16 {
        let known = self.nodes.iter().position(|known| Arc::ptr_eq(known, &node));
        let index = known.unwrap_or_else(|| {
            self.nodes.push(node);
            self.nodes.len() - 1
        });
        u16::try_from(index).unwrap_or(NOBODY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server as CLUSTER SLOTS shows it; without a host where the server doesn't name its own.
    fn server(host: Option<&str>, port: i64) -> String {
        let host = host.map_or_else(|| "$-1\r\n".to_owned(), |host| format!("${}\r\n{host}\r\n", host.len()));
        format!("*3\r\n{host}:{port}\r\n$5\r\nan id\r\n")
    }

    fn array(elements: &[String]) -> String {
        format!("*{}\r\n{}", elements.len(), elements.concat())
    }

    fn range(first: i64, last: i64, servers: &[String]) -> String {
        let ends = [first, last].map(|end| format!(":{end}\r\n"));
        array(&[&ends[..], servers].concat())
    }

    fn place(host: &str, port: u16) -> Place {
        Place { host: host.to_owned(), port }
    }

    #[test]
    fn reads_which_server_has_which_slot() {
        let reply = array(&[
            range(0, 99, &[server(Some("10.0.0.1"), 1), server(Some("10.0.0.2"), 2)]),
            range(100, 100, &[server(None, 3), server(Some("?"), 4), server(Some(""), 5)]),
            range(101, 16_383, &[server(Some("?"), 6)]),
        ]);
        let expected = [
            Shard { first: 0, last: 99, places: vec![place("10.0.0.1", 1), place("10.0.0.2", 2)] },
            Shard { first: 100, last: 100, places: vec![place("said.by", 3), place("said.by", 5)] },
        ];
        assert_eq!(shards(Reply::parse(&reply), "said.by").unwrap(), expected);
    }

    #[test]
    fn refuses_what_is_no_reply_of_a_cluster() {
        let (nil, empty) = (|| "$-1\r\n".to_owned(), || "*0\r\n".to_owned());
        let one = || [server(Some("10.0.0.1"), 1)];
        for reply in [
            nil(),
            array(&[nil()]),
            array(&[range(0, 16_384, &one())]),
            array(&[range(2, 1, &one())]),
            array(&[range(-1, 1, &one())]),
            array(&[range(0, 1, &[])]),
            array(&[range(0, 1, &[empty()])]),
            array(&[range(0, 1, &[server(Some("10.0.0.1"), 65_536)])]),
        ] {
            assert!(shards(Reply::parse(&reply), "said.by").is_err(), "{reply:?}");
        }
    }

    #[test]
    fn reads_where_a_redirection_goes() {
        assert_eq!(Place::parse("10.0.0.1:6379", "said.by"), Some(place("10.0.0.1", 6379)));
        assert_eq!(Place::parse("::1:6379", "said.by"), Some(place("::1", 6379)));
        assert_eq!(Place::parse(":6379", "said.by"), Some(place("said.by", 6379)));
        for nowhere in ["?:6379", "10.0.0.1", "10.0.0.1:", "10.0.0.1:65536"] {
            assert_eq!(Place::parse(nowhere, "said.by"), None, "{nowhere}");
        }
    }

    #[test]
    fn finds_the_slot_of_a_key_as_the_servers_do() {
        assert_eq!((slot("cache:billing:product:42"), slot("x")), (9819, 16_287));
    }
}
