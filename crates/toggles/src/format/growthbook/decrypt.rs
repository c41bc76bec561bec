//! GrowthBook's encrypted payloads: AES-128 in CBC mode with PKCS#7 padding.

use aes::Aes128;
use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use cbc::{
    Decryptor,
    cipher::{BlockDecryptMut, KeyIvInit, block_padding::Pkcs7},
};

/// As forgiving as `atob`, with which the others read it: padding may be missing.
const FORGIVING: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// What `text` (an initialisation vector and a ciphertext in base64, with a dot between) says under `key` (16 bytes in base64).
///
/// `None` for whatever reason: a wrong key shows in the padding or in what comes out, if at all.
pub fn decrypt(text: &str, key: &str) -> Option<String> {
    let mut parts = text.split('.');
    let (vector, ciphertext) = (decoded(parts.next()?)?, decoded(parts.next()?)?);
    let cipher = Decryptor::<Aes128>::new_from_slices(&decoded(key)?, &vector).ok()?;
    let plain = cipher.decrypt_padded_vec_mut::<Pkcs7>(&ciphertext).ok()?;
    String::from_utf8(plain).ok()
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    let text: String = text.chars().filter(|one| !one.is_ascii_whitespace()).collect();
    FORGIVING.decode(text).ok()
}
