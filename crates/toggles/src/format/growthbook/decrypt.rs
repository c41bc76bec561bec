//! GrowthBook's encrypted payloads: AES-128 in CBC mode with PKCS#7 padding.

use aes::Aes128;
use base64::{Engine, engine::general_purpose::STANDARD};
use cbc::{
    Decryptor,
    cipher::{BlockDecryptMut, KeyIvInit, block_padding::Pkcs7},
};

/// What `text` (an initialisation vector and a ciphertext in base64, with a dot between) says under `key` (16 bytes in base64).
///
/// `None` for whatever reason: a wrong key shows in the padding or in what comes out, if at all.
pub fn decrypt(text: &str, key: &str) -> Option<String> {
    let (vector, ciphertext) = text.split_once('.')?;
    let (key, vector) = (STANDARD.decode(key).ok()?, STANDARD.decode(vector).ok()?);
    let cipher = Decryptor::<Aes128>::new_from_slices(&key, &vector).ok()?;
    let plain = cipher.decrypt_padded_vec_mut::<Pkcs7>(&STANDARD.decode(ciphertext).ok()?).ok()?;
    String::from_utf8(plain).ok()
}
