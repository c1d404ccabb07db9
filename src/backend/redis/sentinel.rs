//! Sentinel: the shared connection goes to the master that the sentinels name, and follows a failover.
//!
//! A task asks the sentinels now and then, and at once when a step's error may mean a failover. A server is used only
//! after it has said itself, over the very connection, that it is a master: one that was demoted goes on answering reads.
//! Nothing here connects again by itself, so that no step gets to a server that was not asked.

mod survey;
mod url;

use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ProtocolVersion, PushInfo, PushKind, RedisError, RedisResult, Value};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub(super) use self::survey::advice;
use self::survey::{Named, NoMaster, Place, Sentinel, survey};
pub(in crate::backend) use self::url::Sentinels;
use super::connect::{Address, Beside, Generation};
use super::errors::unexpected_reply;
use super::node::Limits;
use super::replies::is_primary;
use crate::pause::jittered;

/// How often the sentinels are asked while all is well. Like the other pauses, from half of it on, at random.
const POLL: Duration = Duration::from_millis(600);
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// The master that the sentinels name, and the shared connection to it.
pub(super) struct Master {
    sentinels: Sentinels,
    /// How long the sentinels may take to answer, and then their master: both is done within `connect_timeout`.
    limit: Duration,
    /// From so many steps in a row without an answer on, the connection is silent.
    most_unanswered: u32,
    state: watch::Sender<State>,
    generation: Generation,
    /// The number of the next connection.
    numbers: AtomicU64,
    /// Steps without an answer since the last one that had one.
    unanswered: AtomicU32,
    wake: Arc<Notify>,
    supervisor: Mutex<Option<JoinHandle<()>>>,
}

enum State {
    /// Nobody knows yet: steps wait.
    Sought,
    Known(Known),
    /// It was looked for in vain, and still is: steps fail with this.
    Unknown(NoMaster),
}

#[derive(Clone)]
struct Known {
    place: Place,
    connection: MultiplexedConnection,
    number: u64,
    since: Instant,
}

/// What came of looking for the master.
#[derive(PartialEq, Eq)]
enum Looked {
    Same,
    Moved,
    InVain,
}

impl Master {
    /// Begins to look for the master; must be called within a tokio runtime.
    pub(super) fn follow(sentinels: Sentinels, limits: Limits) -> Arc<Self> {
        let master = Arc::new(Self {
            sentinels,
            limit: limits.connect_timeout.mul_f64(0.4),
            most_unanswered: limits.breaker_threshold,
            state: watch::Sender::new(State::Sought),
            generation: Generation::default(),
            numbers: AtomicU64::new(0),
            unanswered: AtomicU32::new(0),
            wake: Arc::default(),
            supervisor: Mutex::default(),
        });
        master.supervise();
        master
    }

    pub(super) fn generation(&self) -> Generation {
        self.generation.clone()
    }

    /// The shared connection with its number, as soon as there is one.
    pub(super) async fn connection(self: &Arc<Self>) -> RedisResult<(MultiplexedConnection, u64)> {
        let Known { connection, number, .. } = self.known().await?;
        Ok((connection, number))
    }

    /// Another connection to the same server as the shared one.
    pub(super) async fn connect_beside(self: &Arc<Self>) -> RedisResult<MultiplexedConnection> {
        loop {
            let Known { place, number, .. } = self.known().await?;
            match self.connect(&place, &AsyncConnectionConfig::new()).await {
                Ok(connection) if self.is_current(number) => return Ok(connection),
                Ok(_) => {}
                Err(no_master) => {
                    self.look_again();
                    return Err(no_master.into());
                }
            }
        }
    }

    /// Where the shared connection goes, as soon as there is one.
    pub(super) async fn whereabouts(self: &Arc<Self>) -> RedisResult<(Address, Beside)> {
        loop {
            let place = self.known().await?.place;
            let address = self.sentinels.address_at(&place)?;
            let state = self.state.borrow();
            if matches!(&*state, State::Known(known) if known.place == place) {
                // Whoever changes the state changes the generation with it.
                return Ok((address, Beside::now(self.generation())));
            }
        }
    }

    /// Says that a connection beside the shared one was lost.
    pub(super) fn lost_beside(self: &Arc<Self>, beside: &Beside) {
        let number = match &*self.state.borrow() {
            State::Known(known) if beside.is_current() => known.number,
            _ => return,
        };
        self.lost(number);
    }

    /// Looks at how a step over the connection of this number ended.
    pub(super) fn check(self: &Arc<Self>, number: u64, error: Option<&RedisError>) {
        self.unanswered.store(0, Ordering::Relaxed);
        match error {
            Some(error) if error.is_io_error() || error.code() == Some("READONLY") => self.lost(number),
            Some(error) if matches!(error.code(), Some("LOADING" | "MASTERDOWN" | "NOREPLICAS")) => self.look_again(),
            _ => {}
        }
    }

    /// Counts a step that got no answer within `limit`.
    pub(super) fn timed_out(self: &Arc<Self>, limit: Duration) {
        let number = match &*self.state.borrow() {
            // What began before this connection was made went over another.
            State::Known(known) if known.since.elapsed() >= limit => known.number,
            _ => return,
        };
        self.look_again();
        if self.unanswered.fetch_add(1, Ordering::Relaxed) + 1 >= self.most_unanswered {
            self.lost(number);
        }
    }

    /// Has the sentinels asked soon.
    pub(super) fn look_again(self: &Arc<Self>) {
        self.wake.notify_one();
        self.supervise();
    }

    /// Gives up a connection, if it is the current one.
    fn lost(self: &Arc<Self>, number: u64) {
        let was_current = self.state.send_if_modified(|state| {
            let is_current = matches!(state, State::Known(known) if known.number == number);
            if is_current {
                *state = State::Sought;
                self.generation.advance();
            }
            is_current
        });
        if was_current {
            self.look_again();
        }
    }

    async fn known(self: &Arc<Self>) -> RedisResult<Known> {
        if let State::Known(known) = &*self.state.borrow() {
            return Ok(known.clone());
        }
        self.supervise();
        let mut states = self.state.subscribe();
        let state = states.wait_for(|state| !matches!(state, State::Sought)).await;
        match state.as_deref() {
            Ok(State::Known(known)) => Ok(known.clone()),
            Ok(State::Unknown(no_master)) => Err(no_master.clone().into()),
            Ok(State::Sought) | Err(_) => Err(unexpected_reply()),
        }
    }

    fn is_current(&self, number: u64) -> bool {
        matches!(&*self.state.borrow(), State::Known(known) if known.number == number)
    }

    /// Starts the task that follows the master, unless it runs: it ends with the runtime that it was started on.
    fn supervise(self: &Arc<Self>) {
        let mut supervisor = self.supervisor.lock().unwrap_or_else(PoisonError::into_inner);
        if supervisor.as_ref().is_none_or(JoinHandle::is_finished) {
            *supervisor = Some(tokio::spawn(follow(Arc::downgrade(self), self.wake.clone())));
        }
    }

    /// Asks the sentinels, and goes where they say.
    async fn look(self: &Arc<Self>, sentinels: &mut [Sentinel]) -> Looked {
        let found = loop {
            let known = match &*self.state.borrow() {
                State::Known(known) => Some(known.clone()),
                _ => None,
            };
            match (survey(sentinels, self.sentinels.name(), self.limit).await, known) {
                // It is not left on the word of a few.
                (Ok(Named { by_majority: false, .. }), Some(known)) if self.is_still_master(&known).await.is_ok() => {
                    break Ok(Looked::Same);
                }
                (Ok(Named { place, .. }), known) => tokio::select! {
                    found = self.stay_or_go(&place, known.as_ref()) => break found,
                    // A master that is gone may take long to show it.
                    () = self.another_is_named(sentinels, &place) => {}
                },
                // Without sentinels there is no failover either: the master stays what it is, as long as it is one.
                (Err(_), Some(known)) => break self.is_still_master(&known).await.map(|()| Looked::Same),
                (Err(no_master), None) => break Err(no_master),
            }
        };
        found.unwrap_or_else(|no_master| {
            self.in_vain(&no_master);
            Looked::InVain
        })
    }

    async fn another_is_named(&self, sentinels: &mut [Sentinel], place: &Place) {
        loop {
            tokio::time::sleep(jittered(LONGEST_PAUSE)).await;
            let named = survey(sentinels, self.sentinels.name(), self.limit).await;
            if named.is_ok_and(|named| named.place != *place) {
                return;
            }
        }
    }

    /// Stays at this place, or goes there, if a master is there.
    async fn stay_or_go(self: &Arc<Self>, place: &Place, known: Option<&Known>) -> Result<Looked, NoMaster> {
        if let Some(known) = known
            && known.place == *place
            && self.is_still_master(known).await.is_ok()
        {
            return Ok(Looked::Same);
        }
        self.go_to(place).await.map(|()| Looked::Moved)
    }

    async fn is_still_master(&self, known: &Known) -> Result<(), NoMaster> {
        let checked = timeout(self.limit, check_role(&mut known.connection.clone(), &known.place)).await;
        checked.unwrap_or_else(|_elapsed| Err(NoMaster::silent(&known.place)))
    }

    /// Connects to a server that the sentinels name, and shares that connection if it is a master.
    async fn go_to(self: &Arc<Self>, place: &Place) -> Result<(), NoMaster> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let mut config = AsyncConnectionConfig::new();
        if self.sentinels.protocol() == ProtocolVersion::RESP3 {
            let master = Arc::downgrade(self);
            config = config.set_push_sender(move |push: PushInfo| {
                if push.kind == PushKind::Disconnection
                    && let Some(master) = master.upgrade()
                {
                    master.lost(number);
                }
                Ok::<_, Infallible>(())
            });
        }
        let connection = self.connect(place, &config).await?;
        let known = Known { place: place.clone(), connection, number, since: Instant::now() };
        self.unanswered.store(0, Ordering::Relaxed);
        self.state.send_modify(|state| {
            *state = State::Known(known);
            self.generation.advance();
        });
        let address = self.sentinels.to_string();
        tracing::info!(address, master = %place, "connected to the master that the sentinels name");
        Ok(())
    }

    async fn connect(&self, place: &Place, config: &AsyncConnectionConfig) -> Result<MultiplexedConnection, NoMaster> {
        let config = config.clone().set_connection_timeout(Some(self.limit)).set_response_timeout(None);
        let connect = async {
            let client = self.sentinels.master_at(place)?;
            let connected = client.get_multiplexed_async_connection_with_config(&config).await;
            let mut connection = connected.map_err(|error| NoMaster::unusable(place, &error))?;
            check_role(&mut connection, place).await?;
            Ok(connection)
        };
        timeout(self.limit, connect).await.unwrap_or_else(|_elapsed| Err(NoMaster::silent(place)))
    }

    fn in_vain(&self, no_master: &NoMaster) {
        let address = self.sentinels.to_string();
        self.state.send_modify(|state| {
            if let State::Known(_) = state {
                self.generation.advance();
            }
            if !matches!(state, State::Unknown(_)) {
                tracing::warn!(address, cause = %no_master, "no master is known");
            }
            *state = State::Unknown(no_master.clone());
        });
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        self.wake.notify_one();
    }
}

/// Follows the master until nobody is interested in it any more.
async fn follow(master: Weak<Master>, wake: Arc<Notify>) {
    let Some(mut sentinels) = master.upgrade().map(|master| master.sentinels.each()) else {
        return;
    };
    let mut pause = SHORTEST_PAUSE;
    while let Some(present) = master.upgrade() {
        let looked = present.look(&mut sentinels).await;
        drop(present);
        pause = if looked == Looked::Moved { SHORTEST_PAUSE } else { LONGEST_PAUSE.min(pause * 2) };
        tokio::time::sleep(jittered(pause)).await;
        if looked != Looked::InVain && timeout(jittered(POLL), wake.notified()).await.is_err() {
            pause = SHORTEST_PAUSE;
        }
    }
}

async fn check_role(connection: &mut MultiplexedConnection, place: &Place) -> Result<(), NoMaster> {
    let role: RedisResult<Vec<Value>> = redis::cmd("ROLE").query_async(connection).await;
    let role = role.map_err(|error| NoMaster::unusable(place, &error))?;
    if is_primary(&role) { Ok(()) } else { Err(NoMaster::replica(place)) }
}
