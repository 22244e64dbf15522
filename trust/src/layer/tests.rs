use super::*;
use crate::key::SecretKey;
use crate::token::Token;
use relay_proto::address::Hop;
use relay_proto::code::FailureCode;
use relay_proto::hop::{Failed, Hello};
use relay_proto::limits::{MAX_HOPS, MAX_PAYLOAD};
use std::time::{Duration, SystemTime};

const STAMP: u64 = 1_795_824_000;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(STAMP)
}

fn id() -> ConnectionId {
    ConnectionId::new(0x0011_2233_4455_66ff)
}

fn hop(text: &str) -> Hop {
    text.parse().unwrap()
}

/// Three nodes and a client on the way to the last of them.
struct Route {
    client: SecretKey,
    nodes: Vec<SecretKey>,
    hops: Vec<Hop>,
}

impl Route {
    fn new() -> Route {
        Route {
            client: SecretKey::generate().unwrap(),
            nodes: (0..3).map(|_| SecretKey::generate().unwrap()).collect(),
            hops: ["pchost1:12000", "pchost2:11000", "[::1]:13000"].map(hop).into(),
        }
    }

    /// Sealed to the first `known` nodes; the first gets the client's signature, the second a token.
    fn seal(&self, known: usize, token: &Token) -> SealedRoute {
        let keys: Vec<PublicKey> = self.nodes.iter().map(SecretKey::public).collect();
        let proofs = [Proof::Key(&self.client), Proof::Token(token), Proof::None];
        let stops: Vec<Stop<'_>> = (0..known)
            .map(|index| Stop { hop: &self.hops[index], key: &keys[index], proof: proofs[index] })
            .collect();
        seal(id(), &stops, &self.hops[known..], now()).unwrap()
    }
}

#[test]
fn each_node_reads_its_own_part() {
    let route = Route::new();
    let token = Token::generate().unwrap();
    let sealed = route.seal(3, &token);
    assert_eq!((sealed.layers.len(), sealed.answers.len()), (3, 3));
    let opened: Vec<OpenedLayer> =
        (0..3).map(|index| open(&route.nodes[index], id(), &sealed.layers[index..]).unwrap()).collect();
    let onward = |index: usize| {
        let key = Some(route.nodes[index].public());
        Some(Onward { next: route.hops[index].clone(), key, beyond: Beyond::Layers })
    };
    assert_eq!(opened[0].onward, onward(1));
    assert_eq!(opened[1].onward, onward(2));
    assert_eq!(opened[2].onward, None, "the origin");
    assert_eq!((opened[0].client, opened[0].token), (Some(route.client.public()), None));
    assert_eq!((opened[1].client, opened[1].token), (None, Some(token.hash())));
    assert!(opened[2].credentials().is_empty());
    assert!(opened.iter().all(|layer| layer.at == STAMP));
    assert_ne!(opened[0].hash, opened[1].hash);
}

#[test]
fn from_the_last_known_key_on_hops_are_plain() {
    let route = Route::new();
    let token = Token::generate().unwrap();
    for known in 1..3 {
        let sealed = route.seal(known, &token);
        assert_eq!(sealed.layers.len(), known);
        let last = open(&route.nodes[known - 1], id(), &sealed.layers[known - 1..]).unwrap();
        let beyond = Beyond::Plain(route.hops[known + 1..].to_vec());
        assert_eq!(last.onward, Some(Onward { next: route.hops[known].clone(), key: None, beyond }));
    }
    assert!(route.seal(0, &token).layers.is_empty());
}

#[test]
fn a_layer_opens_nowhere_else() {
    let route = Route::new();
    let sealed = route.seal(3, &Token::generate().unwrap());
    let layers = &sealed.layers;
    let refuses =
        |index: usize, id, layers: &[SealedLayer]| open(&route.nodes[index], id, layers).unwrap_err();
    assert_eq!(refuses(1, id(), layers), LayerError::Closed, "another node");
    assert_eq!(refuses(0, ConnectionId::new(1), layers), LayerError::Closed, "another id");
    assert_eq!(refuses(0, id(), &[]), LayerError::Missing);
    let swapped = [layers[0].clone(), layers[2].clone(), layers[1].clone()];
    assert_eq!(refuses(0, id(), &swapped), LayerError::Changed);
    assert_eq!(refuses(0, id(), &layers[..2]), LayerError::Changed, "the last was cut off");
    assert_eq!(refuses(0, id(), &layers[..1]), LayerError::Unreadable, "with a next hop, but nothing for it");
    let other = route.seal(3, &Token::generate().unwrap());
    let mixed = [layers[0].clone(), other.layers[1].clone(), other.layers[2].clone()];
    assert_eq!(refuses(0, id(), &mixed), LayerError::Changed);
    for at in 0..layers[0].as_bytes().len() {
        let mut bytes = layers[0].as_bytes().to_vec();
        bytes[at] ^= 1;
        let changed = [&[SealedLayer::new(bytes).unwrap()], &layers[1..]].concat();
        assert_eq!(refuses(0, id(), &changed), LayerError::Closed, "byte {at}");
    }
    for length in 0..layers[0].as_bytes().len() {
        let cut = SealedLayer::new(layers[0].as_bytes()[..length].to_vec()).unwrap();
        assert_eq!(refuses(0, id(), &[cut]), LayerError::Closed, "{length} bytes");
    }
}

/// A hop may tell everything it read. What it read signs for that hop alone.
#[test]
fn a_signature_is_good_at_one_hop_in_one_pipe() {
    let route = Route::new();
    let thief = SecretKey::generate().unwrap();
    let content = |hop: &SecretKey, client: &SecretKey, signer: &SecretKey, signed_id: ConnectionId| {
        let behind = hash_of(&[]);
        content::Content {
            at: STAMP,
            behind: content::Bytes(behind),
            next: None,
            key: None,
            hops: None,
            client: Some(client.public()),
            signature: Some(content::Bytes(
                signer.sign(crate::key::Purpose::Layer, &signed(&hop.public(), signed_id, &behind)),
            )),
            token: None,
        }
    };
    let tries = |content: &content::Content| {
        let json = content.encode().unwrap();
        let (layer, _) = super::seal::seal_one(id(), &route.nodes[0].public(), &json).unwrap();
        open(&route.nodes[0], id(), &[layer]).map(|opened| opened.client)
    };
    let good = content(&route.nodes[0], &route.client, &route.client, id());
    assert_eq!(tries(&good), Ok(Some(route.client.public())));
    let at_another = content(&route.nodes[1], &route.client, &route.client, id());
    assert_eq!(tries(&at_another), Err(LayerError::Signature));
    let in_another = content(&route.nodes[0], &route.client, &route.client, ConnectionId::new(7));
    assert_eq!(tries(&in_another), Err(LayerError::Signature));
    let by_another = content(&route.nodes[0], &route.client, &thief, id());
    assert_eq!(tries(&by_another), Err(LayerError::Signature));
    let unsigned = content::Content { signature: None, ..good };
    assert_eq!(tries(&unsigned), Err(LayerError::Unreadable));
}

#[test]
fn answers_are_the_hops_own_words_once() {
    let route = Route::new();
    let sealed = route.seal(3, &Token::generate().unwrap());
    let mut first = open(&route.nodes[0], id(), &sealed.layers).unwrap();
    let mut second = open(&route.nodes[1], id(), &sealed.layers[1..]).unwrap();
    let hello = Hello { agent: "relay-node/0.1.0".into() };
    let failed = Failed::new(FailureCode::Refused, Some(hop("pchost2:11000")), "no");
    let said = first.answers.hello(&hello).unwrap();
    assert_eq!(sealed.answers[0].hello(&said), Some(hello.clone()));
    assert_eq!(sealed.answers[1].hello(&said), None, "not the second's words");
    assert_eq!(sealed.answers[0].failed(&said), None, "a hello is no failed");
    assert_eq!(first.answers.hello(&hello), None, "one message for each key");
    let said = second.answers.failed(&failed).unwrap();
    assert_eq!(sealed.answers[1].failed(&said), Some(failed.clone()));
    assert_eq!(sealed.answers[0].failed(&said), None);
    // Of another pipe, though of the same hop.
    let again = route.seal(3, &Token::generate().unwrap());
    assert_eq!(again.answers[1].failed(&said), None);
    let mut changed = said.as_bytes().to_vec();
    changed[0] ^= 1;
    assert_eq!(sealed.answers[1].failed(&relay_proto::sealed::SealedAnswer::new(changed).unwrap()), None);
}

#[test]
fn an_answers_size_says_nothing() {
    let route = Route::new();
    let failed = |message: &str, next: Option<Hop>| {
        let sealed = route.seal(1, &Token::generate().unwrap());
        let mut layer = open(&route.nodes[0], id(), &sealed.layers).unwrap();
        let failed = Failed::new(FailureCode::TooManyHops, next, message);
        let said = layer.answers.failed(&failed).unwrap();
        assert_eq!(sealed.answers[0].failed(&said), Some(failed));
        said.as_bytes().len()
    };
    let longest = failed(&"\"\\".repeat(600), Some(hop(&format!("{}:65535", "h".repeat(253)))));
    assert_eq!(failed("", None), longest);
    let hello = |agent: &str| {
        let sealed = route.seal(1, &Token::generate().unwrap());
        let mut layer = open(&route.nodes[0], id(), &sealed.layers).unwrap();
        layer.answers.hello(&Hello { agent: agent.to_owned() }).unwrap().as_bytes().len()
    };
    assert_eq!(hello(""), hello(&format!("{}…", "\"".repeat(64))));
}

#[test]
fn a_layers_size_says_little() {
    let route = Route::new();
    let sealed = route.seal(3, &Token::generate().unwrap());
    for layer in &sealed.layers {
        assert_eq!((layer.as_bytes().len() - ENCAPSULATED - 16) % 256, 0);
    }
    let origin = SecretKey::generate().unwrap().public();
    let to = |host: &str| {
        let hop = hop(&format!("{host}:1"));
        let first = route.nodes[0].public();
        let stops = [
            Stop { hop: &hop, key: &first, proof: Proof::None },
            Stop { hop: &hop, key: &origin, proof: Proof::None },
        ];
        seal(id(), &stops, &[], now()).unwrap().layers[0].as_bytes().len()
    };
    assert_eq!(to("a"), to(&"a".repeat(40)));
}

#[test]
fn the_longest_route_fits_a_frame() {
    let client = SecretKey::generate().unwrap();
    let keys: Vec<PublicKey> = (0..MAX_HOPS).map(|_| SecretKey::generate().unwrap().public()).collect();
    let hops: Vec<Hop> =
        (0..MAX_HOPS).map(|n| hop(&format!("node-{n}.some-network.example:11000"))).collect();
    let stops: Vec<Stop<'_>> =
        hops.iter().zip(&keys).map(|(hop, key)| Stop { hop, key, proof: Proof::Key(&client) }).collect();
    let sealed = seal(id(), &stops, &[], now()).unwrap();
    let json = serde_json::to_vec(&sealed.layers).unwrap();
    assert!(json.len() < MAX_PAYLOAD - 256, "{} bytes", json.len());
    // All others in plain, with the longest names there are.
    let long: Vec<Hop> = (0..MAX_HOPS - 1).map(|_| hop(&format!("{}:65535", "h".repeat(253)))).collect();
    let sealed = seal(id(), &stops[..1], &long, now()).unwrap();
    assert!(serde_json::to_vec(&sealed.layers).unwrap().len() < MAX_PAYLOAD - 256);
}

#[test]
fn nothing_is_sealed_to_what_is_no_key() {
    let route = Route::new();
    let mut identity = [0; 32];
    identity[0] = 1;
    for bytes in [identity, [0; 32], [0xff; 32]] {
        let key = PublicKey::from_bytes(bytes);
        let stops = [Stop { hop: &route.hops[0], key: &key, proof: Proof::None }];
        assert_eq!(seal(id(), &stops, &[], now()).unwrap_err(), SealError::Key(key));
    }
}

#[test]
fn no_secret_of_a_layer_is_printed() {
    let route = Route::new();
    let token = Token::generate().unwrap();
    let sealed = route.seal(3, &token);
    let opened = open(&route.nodes[1], id(), &sealed.layers[1..]).unwrap();
    let stop = Stop { hop: &route.hops[0], key: &route.nodes[0].public(), proof: Proof::Token(&token) };
    let printed = format!("{sealed:?} {opened:?} {stop:?}");
    assert!(!printed.contains(&token.expose()[11..]), "{printed}");
}
