#include "protocol/credentials.h"

namespace postern {

void describeCredentials(const GuestCredentials& credentials, Hello& hello) {
  KJ_SWITCH_ONEOF(credentials) {
    KJ_CASE_ONEOF(identity, GuestIdentity) {
      hello.patterns = PATTERN_KKPSK0;
      hello.keyHint = keyHint(identity.host, identity.own.publicKey());
    }
    KJ_CASE_ONEOF(enrolment, GuestEnrolment) {
      hello.patterns = PATTERN_XXPSK0;
      hello.tokenHint = tokenHint(enrolment.token);
    }
  }
}

}  // namespace postern
