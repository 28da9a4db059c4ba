# A file of Noise test vectors in cacophony's JSON format, as JsonCodec reads it. The two public dialects differ in a few
# names; both are here. Fields that no dialect needs for a run (pattern, dh, cipher, hash: all in the name) are left out.
@0xd5a3c1be0f6e4a27;

using Json = import "/capnp/compat/json.capnp";
using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("postern::noise::vectors");

struct File {
  vectors @0 :List(Vector);
}

struct Vector {
  # protocolName in cacophony, name in noise-c.
  protocolName @0 :Text $Json.name("protocol_name");
  name @1 :Text;

  initPrologue @2 :Data $Json.name("init_prologue") $Json.hex;
  initEphemeral @3 :Data $Json.name("init_ephemeral") $Json.hex;
  initStatic @4 :Data $Json.name("init_static") $Json.hex;
  initRemoteStatic @5 :Data $Json.name("init_remote_static") $Json.hex;
  # Hexadecimal; psks in cacophony, psk in noise-c.
  initPsks @6 :List(Text) $Json.name("init_psks");
  initPsk @7 :Text $Json.name("init_psk");

  respPrologue @8 :Data $Json.name("resp_prologue") $Json.hex;
  respEphemeral @9 :Data $Json.name("resp_ephemeral") $Json.hex;
  respStatic @10 :Data $Json.name("resp_static") $Json.hex;
  respRemoteStatic @11 :Data $Json.name("resp_remote_static") $Json.hex;
  respPsks @12 :List(Text) $Json.name("resp_psks");
  respPsk @13 :Text $Json.name("resp_psk");

  handshakeHash @14 :Data $Json.name("handshake_hash") $Json.hex;
  messages @15 :List(Message);
}

struct Message {
  payload @0 :Data $Json.hex;
  ciphertext @1 :Data $Json.hex;
}
