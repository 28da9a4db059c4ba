/* The serial link's resynchronisation: two ends over two pipes that know no sessions.
 *
 * A pipe delivers in order. It may lose a contiguous run of frames, tear a frame (JUNK), and begin with frames of
 * sessions long dead; it never says that the peer has changed. An end may restart at any moment. Checked:
 *   - an own epoch goes UP at most once, so no two sessions share a pair of epochs;
 *   - a frame that reaches the session was sent in that session (no stale frame is accepted);
 *   - within BOUND steps of both ends together after the last fault, both are UP with each other's current epoch
 *     and have keys, and stay so until the next fault;
 *   - nothing blocks for ever (invalid end states).
 * tests/model/README.md says what is left out and what each mutation (#ifdef) shows. */

#ifndef CAPACITY
#define CAPACITY 2 /* frames a pipe holds */
#endif
#ifndef STALE
#define STALE 2 /* frames of dead sessions in each pipe at the start, at most */
#endif
#ifndef RESTARTS
#define RESTARTS 1 /* of each end */
#endif
#ifndef LOSSES
#define LOSSES 1 /* runs lost, both pipes together */
#endif
#ifndef EARLY_RETRIES
#define EARLY_RETRIES 1 /* retries of each end while an answer is still on its way */
#endif
#ifndef DATA_FRAMES
#define DATA_FRAMES 2 /* frames that each end sends in a session */
#endif
#ifndef BOUND
#define BOUND 50
#endif

#define GUEST 0 /* the initiator of the handshake */
#define HOST 1
#define NOBODY 0 /* no epoch heard */
#define DEAD 1   /* the epoch that each end had before this run */

mtype = { SYNC, FIRST, SECOND, DATA, JUNK };

/* pipe[i] is written by end i. SYNC: epoch, echo, reply wanted. Others: the sender's epoch and its peer's, which is
 * what the link tag is made of. */
chan pipe[2] = [CAPACITY] of { mtype, byte, byte, bit };

byte own[2];     /* epoch; counts up, so a new one is fresh */
byte peer[2];    /* last epoch heard */
bit up[2];
bit used[2];     /* own[i] has been UP */
bit owed[2];     /* a SYNC is to be written: at open, as a reply, as a retry (coalesced) */
bit due[2];      /* a handshake message is to be written */
bit keys[2];
byte quota[2];   /* DATA still to be sent in this session */
byte early[2];
bit faultsOver;
bit agreed;      /* both ends had keys for the same pair, and no fault since */
byte steps;      /* since the last fault, while not agreed */

#define AGREED (up[0] && up[1] && own[0] == peer[1] && own[1] == peer[0] && keys[0] && keys[1])
#define QUIET (empty(pipe[0]) && empty(pipe[1]) && !owed[0] && !owed[1] && !due[0] && !due[1])

/* After each step. The line is for `spin -t -T`, which replays an error. */
inline tick() {
  printf("guest %d/%d up=%d keys=%d owed=%d   host %d/%d up=%d keys=%d owed=%d\n",
         own[0], peer[0], up[0], keys[0], owed[0], own[1], peer[1], up[1], keys[1], owed[1]);
  if
  :: AGREED -> agreed = 1; steps = 0
  :: else ->
    assert(!agreed /* agreement lasts until the next fault */);
#ifndef UNBOUNDED /* for a mutation that also livelocks, to see its other fault */
    steps++;
    assert(steps <= BOUND /* livelock */)
#endif
  fi
}

inline fault() { agreed = 0; steps = 0 }

inline dropSession(i) { up[i] = 0; keys[i] = 0; due[i] = 0; quota[i] = 0 }

/* Rules 3, 5 and 7: a new own epoch is announced at once. */
inline newEpoch(i) { own[i]++; used[i] = 0; owed[i] = 1 }

inline onSync(i, e, echo, wanted) {
  if
  :: e != peer[i] ->
    dropSession(i);
    peer[i] = e;
    if
#ifdef NEW_EPOCH_ALWAYS
    :: true -> newEpoch(i)
#elif defined(NEW_EPOCH_WHEN_HEARD)
    :: used[i] -> newEpoch(i); used[i] = 1
    :: else -> used[i] = 1
#elif defined(NEW_EPOCH_NEVER)
    :: true
#else
    :: used[i] -> newEpoch(i)
    :: else
#endif
    fi
  :: else
  fi;
  if
#if defined(NO_ECHO_CHECK) || defined(NO_ECHO_NO_TAG)
  :: !up[i] ->
#else
  :: !up[i] && echo == own[i] ->
#endif
#if !defined(NEW_EPOCH_WHEN_HEARD) && !defined(NO_ECHO_CHECK) && !defined(NO_ECHO_NO_TAG)
    assert(!used[i] /* an epoch is UP once */);
#endif
    up[i] = 1;
    used[i] = 1;
    due[i] = (i == GUEST)
  :: else
#if !defined(NO_ECHO_CHECK) && !defined(NO_ECHO_NO_TAG)
    -> assert(!(up[i] && echo != own[i]) /* a peer that we have does not unlearn us */)
#endif
  fi;
  if
  :: wanted -> owed[i] = 1
  :: else
  fi
}

/* Rule 7. */
inline fail(i) { dropSession(i); newEpoch(i) }

#ifdef NO_ECHO_NO_TAG
#define FITS(i, e, echo) true
#else
#define FITS(i, e, echo) (e == peer[i] && echo == own[i])
#endif

inline onFrame(i, kind, e, echo) {
  if
  :: !up[i] /* skipped */
  :: up[i] && kind == JUNK -> fault(); fail(i)
  :: up[i] && kind != JUNK && !FITS(i, e, echo) /* skipped */
  :: up[i] && kind != JUNK && FITS(i, e, echo) ->
    assert(e == peer[i] && echo == own[i] /* no stale frame is accepted */);
    if
    :: kind == FIRST && i == HOST && !keys[i] -> keys[i] = 1; due[i] = 1; quota[i] = DATA_FRAMES
    :: kind == SECOND && i == GUEST && !keys[i] -> keys[i] = 1; quota[i] = DATA_FRAMES
    :: kind == DATA && keys[i]
    :: else -> fail(i)
    fi
  fi
}

#ifdef WRITE_BEFORE_READ
#define MAY_READ(i) (!owed[i] && !due[i] && quota[i] == 0)
#else
#define MAY_READ(i) true
#endif
#ifdef FRAME_BEFORE_REPLY
#define REPLY_FIRST(i) true
#else
#define REPLY_FIRST(i) (!owed[i])
#endif

proctype End(bit me) {
  mtype kind;
  byte e, echo;
  bit wanted;
  do
  :: d_step { MAY_READ(me) && nempty(pipe[1 - me]) ->
      pipe[1 - me]?kind, e, echo, wanted;
      if
      :: kind == SYNC -> onSync(me, e, echo, wanted)
      :: else -> onFrame(me, kind, e, echo)
      fi;
      kind = 0; e = 0; echo = 0; wanted = 0;
      tick()
    }
  :: d_step { owed[me] && nfull(pipe[me]) ->
      pipe[me]!SYNC(own[me], peer[me], !up[me]);
      owed[me] = 0;
      tick()
    }
  :: d_step { due[me] && REPLY_FIRST(me) && nfull(pipe[me]) ->
      if
      :: me == GUEST -> pipe[me]!FIRST(own[me], peer[me], 0)
      :: else -> pipe[me]!SECOND(own[me], peer[me], 0)
      fi;
      due[me] = 0;
      tick()
    }
  :: d_step { quota[me] > 0 && !due[me] && REPLY_FIRST(me) && nfull(pipe[me]) ->
      pipe[me]!DATA(own[me], peer[me], 0);
      quota[me]--;
      tick()
    }
  :: d_step { !up[me] && !owed[me] && early[me] > 0 -> early[me]--; owed[me] = 1; tick() }
#ifndef NO_RETRY
  :: d_step { !up[me] && QUIET -> owed[me] = 1; tick() }
#endif
#ifndef NO_HANDSHAKE_DEADLINE
  :: d_step { up[me] && !keys[me] && QUIET -> fail(me); tick() }
#endif
  :: faultsOver && AGREED && QUIET && quota[0] == 0 && quota[1] == 0 -> break
  od
}

inline restart(i) { dropSession(i); peer[i] = NOBODY; newEpoch(i); fault() }

/* A contiguous run vanishes; a torn frame may stay in its place. */
inline lose(i) {
  n = len(pipe[i]);
  phase = 0;
  do
  :: n > 0 ->
    n--;
    pipe[i]?kind, e, echo, wanted;
    if
    :: phase == 0 -> pipe[i]!kind(e, echo, wanted)
    :: phase == 0 -> phase = 1
    :: phase == 0 -> phase = 1; pipe[i]!JUNK(0, 0, 0)
    :: phase == 1
    :: phase == 1 -> phase = 2; pipe[i]!kind(e, echo, wanted)
    :: phase == 2 -> pipe[i]!kind(e, echo, wanted)
    fi
  :: n == 0 -> break
  od;
  phase = 0; kind = 0; e = 0; echo = 0; wanted = 0;
  fault()
}

proctype Faults() {
  byte restarts[2] = RESTARTS;
  byte losses = LOSSES;
  byte n, phase, e, echo;
  mtype kind;
  bit wanted;
  do
  :: atomic { restarts[0] > 0 -> restarts[0]--; restart(0) }
  :: atomic { restarts[1] > 0 -> restarts[1]--; restart(1) }
  :: atomic { losses > 0 && nempty(pipe[0]) -> losses--; lose(0) }
  :: atomic { losses > 0 && nempty(pipe[1]) -> losses--; lose(1) }
  :: faultsOver = 1 -> break
  od
}

init {
  byte n;
  bit i;
  atomic {
    do
    :: true ->
      n = 0;
      do
      :: n < STALE ->
        n++;
        if
        :: pipe[i]!SYNC(DEAD, NOBODY, 1)
        :: pipe[i]!SYNC(DEAD, DEAD, 1)
        :: pipe[i]!SYNC(DEAD, DEAD, 0)
        :: pipe[i]!FIRST(DEAD, DEAD, 0)
        :: pipe[i]!DATA(DEAD, DEAD, 0)
        :: pipe[i]!JUNK(0, 0, 0)
        fi
      :: break
      od;
      own[i] = DEAD + 1;
      owed[i] = 1;
      early[i] = EARLY_RETRIES;
      if
      :: i == 0 -> i = 1
      :: i == 1 -> i = 0; break
      fi
    od;
    n = 0;
    run End(GUEST);
    run End(HOST);
    run Faults()
  }
}
