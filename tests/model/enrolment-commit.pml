/* Enrolment: a guest and a host become a pair, although either may crash between any two steps and any link may be
 * lost; a thief who has read the token tries as well. Only what was fsynced survives a crash. Checked:
 *   - the host is active only with the key and the secret that its guest has on disk, the guest only when the host is;
 *   - the token serves one key, the first it was bound to: no other key ever gets a secret;
 *   - a repeated run brings the secret that the guest already has;
 *   - the guest gets to a working pair with ATTEMPTS connections after the last fault. It may end without one only
 *     if a thief came first, or the token ran out before the guest had the secret; the host is not active for it then;
 *   - nothing blocks for ever (invalid end states).
 * Cryptography is perfect here: a handshake succeeds exactly when both ends hold the same keys, and nobody else reads
 * or writes a link. tests/model/README.md says what each mutation (#ifdef) shows. */

#ifndef GUEST_CRASHES
#define GUEST_CRASHES 2
#endif
#ifndef HOST_CRASHES
#define HOST_CRASHES 2
#endif
#ifndef LINKS_LOST
#define LINKS_LOST 1
#endif
#ifndef REPEATS
#define REPEATS 1 /* runs of XXpsk0 by a guest that has its secret already (`join` by hand) */
#endif
#ifndef THEFTS
#define THEFTS 1 /* runs of XXpsk0 by the thief */
#endif
#ifndef ATTEMPTS
#define ATTEMPTS 1 /* connections the guest may need after the last fault */
#endif

#define NOTHING 0
#define THIEF 1 /* a key; the guest's are 2, 3, ... in the order they are made */

mtype = { XX, KK, ACCEPT, COMMIT, COMMITTED, REFUSED };
mtype = { ABSENT, PENDING, ACTIVE };

/* Links 0 and 1 are the guest's, in turn, since the host may still be reading the last one; link 2 is the thief's.
 * XX and KK stand for a whole handshake up to CONFIRM. Bytes under way when a link is lost may still arrive. */
#define STOLEN 2
chan toHost[3] = [2] of { mtype, byte, byte };  /* kind, key, secret (KK: the psk) */
chan toGuest[3] = [2] of { mtype, byte };       /* kind, secret */
bit lost[3];

/* On disk. The host's record (state, key, secret) is one atomic write, the token's is another. */
mtype hostState = ABSENT;
byte hostKey, hostSecret;
byte boundKey;
bit burnt;
mtype guestState = ABSENT;
byte guestKey, guestSecret;

bit accepted[3];       /* the host's, in memory: XX went through on this link and ACCEPT was sent */
byte busy = 3;         /* the link the host is working on; 3: none */
bit expired;           /* the token's lifetime is over */
byte firstKey;         /* for the assertions: the first key the token was bound to */
byte secretsMade, keysMade = THIEF;
byte attempts;

inline toGuestUnlessLost(l, kind, secret) {
  if
  :: lost[l]
  :: else -> toGuest[l]!kind(secret)
  fi
}

inline emptyToHost(l) {
  do
  :: nempty(toHost[l]) -> toHost[l]?_, _, _
  :: empty(toHost[l]) -> break
  od
}

inline emptyToGuest(l) {
  do
  :: nempty(toGuest[l]) -> toGuest[l]?_, _
  :: empty(toGuest[l]) -> break
  od
}

inline connect(l) { emptyToHost(l); emptyToGuest(l); lost[l] = 0; accepted[l] = 0 }

#define MAY_CRASH \
  if \
  :: true \
  :: atomic { crashes > 0 -> crashes--; goto crashed } \
  fi

#ifdef NEW_SECRET_ON_REPEAT
#define DRAWS_SECRET true
#else
#define DRAWS_SECRET (hostState == ABSENT)
#endif
inline storePending() {
  if
  :: DRAWS_SECRET ->
    if
    :: hostState == ABSENT -> hostState = PENDING
    :: else
    fi;
    hostKey = key;
    secretsMade++;
    hostSecret = secretsMade
  :: else
  fi
}

#ifdef NO_BINDING
#define TOKEN_REFUSES(k) (burnt || expired)
#else
#define TOKEN_REFUSES(k) (burnt || expired || (boundKey != NOTHING && boundKey != k))
#endif
#ifdef KK_ONLY_WHEN_ACTIVE
#define KNOWS_PAIR(k, s) (hostState == ACTIVE && k == hostKey && s == hostSecret)
#else
#define KNOWS_PAIR(k, s) (hostState != ABSENT && k == hostKey && s == hostSecret)
#endif

inline activate() {
  /* Never before the guest has the secret on disk. */
  assert(hostKey == THIEF || (guestKey == hostKey && guestSecret == hostSecret));
  hostState = ACTIVE
}

proctype Host() {
  byte crashes = HOST_CRASHES;
  byte key, secret;
  mtype kind;
end:
  do
  :: atomic { nempty(toHost[0]) -> busy = 0; toHost[0]?kind, key, secret; goto work }
  :: atomic { nempty(toHost[1]) -> busy = 1; toHost[1]?kind, key, secret; goto work }
  :: atomic { nempty(toHost[2]) -> busy = 2; toHost[2]?kind, key, secret; goto work }
  :: atomic { crashes > 0 -> crashes--; goto crashed }
  od;
work:
  if
  :: atomic { kind == XX && TOKEN_REFUSES(key) -> toGuestUnlessLost(busy, REFUSED, NOTHING) }
  :: atomic {
      kind == XX && !TOKEN_REFUSES(key) ->
      boundKey = key;
      if
      :: firstKey == NOTHING -> firstKey = key
      :: else
      fi
    }
    MAY_CRASH;
    d_step {
      storePending();
#ifdef BURN_BEFORE_COMMIT
      burnt = 1
#endif
    }
    MAY_CRASH;
    d_step {
      assert(key == firstKey /* one key a token */);
      toGuestUnlessLost(busy, ACCEPT, hostSecret);
      accepted[busy] = 1
    }
  :: atomic { kind == KK && !KNOWS_PAIR(key, secret) -> toGuestUnlessLost(busy, REFUSED, NOTHING) }
  :: atomic {
      /* KK: its psk proves that the guest has the secret on disk, which is what COMMIT says. */
      (kind == COMMIT && accepted[busy]) || (kind == KK && KNOWS_PAIR(key, secret)) ->
      activate()
    }
    MAY_CRASH;
    burnt = 1;
    MAY_CRASH;
    d_step { toGuestUnlessLost(busy, COMMITTED, NOTHING) }
  :: kind == COMMIT && !accepted[busy] /* from before the host's crash */
  fi;
  atomic { busy = 3; kind = 0; key = 0; secret = 0; goto end }
crashed:
  atomic {
    accepted[0] = 0; accepted[1] = 0; accepted[2] = 0;
    lost[0] = 1; lost[1] = 1; lost[2] = 1;
    emptyToHost(0); emptyToHost(1); emptyToHost(2);
    busy = 3; kind = 0; key = 0; secret = 0;
    attempts = 0;
    goto end
  }
}

#ifdef XX_ONLY
#define KK_FIRST false
#else
#define KK_FIRST (secret != NOTHING && !kkRefused)
#endif

proctype Guest() {
  byte crashes = GUEST_CRASHES;
  byte repeats = REPEATS;
  byte key, secret, received; /* in memory */
  mtype kind;
  bit link, triedKk, kkRefused;
boot:
  atomic { key = guestKey; secret = guestSecret }
  if
  :: key == NOTHING ->
    d_step { keysMade++; key = keysMade }
    MAY_CRASH;
#ifndef CONNECT_BEFORE_PERSIST
    d_step { guestState = PENDING; guestKey = key }
    MAY_CRASH
#endif
  :: else
  fi;
again:
  atomic {
    busy != 1 - link ->
    link = 1 - link;
    connect(link);
    if
    :: KK_FIRST -> attempts++; triedKk = 1; toHost[link]!KK(key, secret)
    :: KK_FIRST && repeats > 0 -> repeats--; attempts = 0; triedKk = 0; toHost[link]!XX(key, NOTHING)
    :: !(KK_FIRST) -> attempts++; triedKk = 0; toHost[link]!XX(key, NOTHING)
    fi;
    kkRefused = 0;
    assert(attempts <= ATTEMPTS /* locked out */)
  }
  if
  :: toGuest[link]?ACCEPT, received ->
    assert(secret == NOTHING || secret == received /* a repeated run changes nothing */);
    secret = received;
    MAY_CRASH;
#ifdef COMMIT_BEFORE_FSYNC
    toHost[link]!COMMIT(NOTHING, NOTHING);
    MAY_CRASH;
    d_step { guestState = PENDING; guestKey = key; guestSecret = secret }
#else
    d_step { guestState = PENDING; guestKey = key; guestSecret = secret }
    MAY_CRASH;
    d_step {
      if
      :: lost[link]
      :: else -> toHost[link]!COMMIT(NOTHING, NOTHING)
      fi
    }
#endif
    if
    :: toGuest[link]?COMMITTED, _ -> goto committed
    :: lost[link] -> goto again
    :: atomic { crashes > 0 -> crashes--; goto crashed }
    fi
  :: toGuest[link]?COMMITTED, _ -> goto committed
  :: toGuest[link]?REFUSED, _ ->
    if
    :: boundKey == THIEF || (expired && secret == NOTHING) ->
      assert(hostState != ACTIVE || hostKey == THIEF);
      goto done
    :: else -> kkRefused = triedKk; goto again
    fi
  :: lost[link] -> goto again
  :: atomic { crashes > 0 -> crashes--; goto crashed }
  fi;
committed:
  MAY_CRASH;
  atomic {
    guestState = ACTIVE;
    assert(hostState == ACTIVE && hostKey == guestKey && hostSecret == guestSecret && burnt);
    goto done
  }
crashed:
  atomic { key = 0; secret = 0; received = 0; triedKk = 0; kkRefused = 0; lost[link] = 1; attempts = 0; goto boot }
done:
  atomic { key = 0; secret = 0; received = 0; triedKk = 0; kkRefused = 0; lost[link] = 1 }
}

proctype Thief() {
  byte tries = THEFTS;
  byte secret;
end:
  do
  :: atomic { tries > 0 && busy != STOLEN -> tries--; connect(STOLEN); toHost[STOLEN]!XX(THIEF, NOTHING) }
    if
    :: toGuest[STOLEN]?ACCEPT, secret -> toHost[STOLEN]!COMMIT(NOTHING, NOTHING)
    :: toGuest[STOLEN]?REFUSED, _
    :: lost[STOLEN]
    fi
  od
}

inline loseLink(l) {
  lost[l] = 1;
  attempts = 0;
  if
  :: emptyToHost(l)
  :: true
  fi;
  if
  :: emptyToGuest(l)
  :: true
  fi
}

proctype Faults() {
  byte left = LINKS_LOST;
  do
  :: atomic { left > 0 && !lost[0] -> left--; loseLink(0) }
  :: atomic { left > 0 && !lost[1] -> left--; loseLink(1) }
  :: atomic { !expired -> expired = 1; attempts = 0 }
  :: break
  od
}

init {
  atomic {
    run Host();
    run Guest();
    run Thief();
    run Faults()
  }
}
