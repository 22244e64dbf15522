//! The vectors of `docs/protocol.md` that are about keys, tokens and layers.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test may stop at the first surprise, its helpers too"
)]

use relay_proto::hop::{ConnectionId, Failed, Hello};
use relay_proto::sealed::{SealedAnswer, SealedLayer};
use relay_trust::key::{PublicKey, Purpose, SecretKey, verify};
use relay_trust::layer::{Beyond, open};
use relay_trust::token::{Token, TokenHash};
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// A block's second word, and its lines by their first words.
type Block = (String, HashMap<String, Vec<String>>);

/// The blocks whose first word is `kind`. There must be some, or a test would check nothing.
fn blocks(kind: &str) -> Vec<Block> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol.md");
    let document = fs::read_to_string(path).expect("the specification");
    let mut lines = document.lines();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```").filter(|info| !info.is_empty()) else { continue };
        let mut fields: HashMap<String, Vec<String>> = HashMap::new();
        for line in lines.by_ref().take_while(|line| *line != "```") {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            fields.entry(word.to_owned()).or_default().push(rest.to_owned());
        }
        let (first, second) = info.split_once(' ').unwrap_or((info, ""));
        if first == kind {
            found.push((second.to_owned(), fields));
        }
    }
    assert!(!found.is_empty(), "no {kind} in the specification");
    found
}

fn field<'a>(block: &'a Block, name: &str) -> &'a str {
    block.1.get(name).and_then(|lines| lines.first()).unwrap_or_else(|| panic!("no {name}"))
}

fn hex(text: &str) -> Vec<u8> {
    let digits = (0..text.len()).step_by(2).map(|at| &text[at..at + 2]);
    digits.map(|byte| u8::from_str_radix(byte, 16).expect("hex")).collect()
}

fn json<T: DeserializeOwned>(text: &str) -> T {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The secret key of a seed, by the blocks that say how it is kept.
fn secret_of(seed: &str) -> SecretKey {
    let blocks = blocks("key");
    let block = blocks.iter().find(|block| field(block, "seed") == seed).expect("a key of this seed");
    let pem = field(block, "pem");
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{pem}\n-----END PRIVATE KEY-----\n");
    let secret = SecretKey::from_pem(&pem).expect("a key");
    assert_eq!(secret.to_pem().expect("pem").as_str(), pem);
    assert_eq!(secret.public().to_string(), field(block, "key"));
    secret
}

#[test]
fn keys_and_how_they_are_kept() {
    for block in blocks("key") {
        secret_of(field(&block, "seed"));
    }
}

#[test]
fn tokens_and_their_hashes() {
    for block in blocks("token") {
        let token: Token = field(&block, "token").parse().expect("a token");
        let hash: TokenHash = field(&block, "hash").parse().expect("a hash");
        assert_eq!(token.hash(), hash);
    }
}

#[test]
fn signatures_are_good_for_their_purpose_alone() {
    for block in blocks("signature") {
        let (purpose, other) = match block.0.as_str() {
            "next-key" => (Purpose::NextKey, Purpose::Layer),
            "layer" => (Purpose::Layer, Purpose::NextKey),
            name => panic!("no purpose {name}"),
        };
        let key: PublicKey = field(&block, "key").parse().expect("a key");
        let message = hex(field(&block, "message"));
        // Sixty-four bytes have the same text here as in a sealed answer.
        let signature: SealedAnswer = json(&format!("{:?}", field(&block, "signature")));
        let signature = signature.as_bytes().try_into().expect("64 bytes");
        assert!(verify(&key, purpose, &message, signature));
        assert!(!verify(&key, other, &message, signature));
    }
}

#[test]
fn layers_open_and_answers_too() {
    for block in blocks("layer") {
        let secret = secret_of(field(&block, "seed"));
        let id: ConnectionId = json(&format!("{:?}", field(&block, "id")));
        let texts = block.1.get("layer").expect("layers");
        let layers: Vec<SealedLayer> = texts.iter().map(|text| json(&format!("{text:?}"))).collect();
        let mut opened = open(&secret, id, &layers).expect("a layer");
        let content: HashMap<String, serde_json::Value> = json(field(&block, "content"));
        let said = |name: &str| content.get(name).map(|value| serde_json::to_string(value).expect("JSON"));
        let onward = opened.onward.take().expect("a next hop");
        assert_eq!(said("at"), Some(opened.at.to_string()));
        assert_eq!(Some(onward.next), said("next").map(|text| json(&text)));
        assert_eq!(onward.key, said("key").map(|text| json(&text)));
        assert_eq!(opened.client, said("client").map(|text| json(&text)));
        let token = said("token").map(|text| json::<String>(&text).parse::<Token>().expect("a token").hash());
        assert_eq!(opened.token, token);
        match said("hops") {
            Some(hops) => assert_eq!(onward.beyond, Beyond::Plain(json(&hops))),
            None => assert_eq!(onward.beyond, Beyond::Layers),
        }
        // Sealing an answer is not random: the key is used for it alone.
        let hello: Hello = json(field(&block, "hello-content"));
        let sealed: SealedAnswer = json(&format!("{:?}", field(&block, "hello")));
        assert_eq!(opened.answers.hello(&hello), Some(sealed));
        if block.1.contains_key("failed") {
            let failed: Failed = json(field(&block, "failed-content"));
            let sealed: SealedAnswer = json(&format!("{:?}", field(&block, "failed")));
            assert_eq!(opened.answers.failed(&failed), Some(sealed));
        }
    }
}
