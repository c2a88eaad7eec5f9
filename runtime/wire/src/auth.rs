//! The proof that both ends of a link belong to one job: both know its 256-bit secret (reliability.md S2).
//!
//! ```text
//! initiator                                        responder
//!   HELLO      magic, version, nonce I   ------->
//!              <-------   CHALLENGE      nonce R, HMAC(secret, "responder" | HELLO | nonce R)
//!   PROOF      HMAC(secret, "initiator" | HELLO | nonce R)   ------->
//! ```
//!
//! *No replay*: each side contributes a fresh nonce, and each code covers both. *No reflection*: the codes of the two
//! roles carry different labels, so an answer of one is never a valid answer of the other. *Nothing learned*: a
//! stranger sees nonces and codes of a secret of full entropy; the secret itself never travels. Codes are compared in
//! constant time. A refused link is closed without a word.
//!
//! The handshake authenticates the two ends at its time; the data that follows is neither encrypted nor signed
//! (reliability.md S4): links between hosts need a network whose packets strangers cannot forge.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::VERSION;

/// Bytes of a nonce, of a secret and of a code.
const SIZE: usize = 32;
const MAGIC: [u8; 6] = *b"WNDLSS";
/// Bytes of the first message: magic, version, nonce.
pub const HELLO: usize = MAGIC.len() + 2 + SIZE;
/// Bytes of the second message: nonce, code.
pub const CHALLENGE: usize = 2 * SIZE;
/// Bytes of the third message: code.
pub const PROOF: usize = SIZE;
/// Longest time a blocking handshake takes in all, however slowly the other end sends.
pub const DEADLINE: Duration = Duration::from_secs(2);

const FROM_RESPONDER: &[u8] = b"windlass handshake: responder";
const FROM_INITIATOR: &[u8] = b"windlass handshake: initiator";

/// The secret of a job: 256 random bits, made by the launcher, handed down by inherited descriptors only.
///
/// Its text form hides it; comparing takes the same time wherever two secrets differ; dropping overwrites it.
#[derive(Clone)]
pub struct Secret([u8; SIZE]);

impl Secret {
    /// A fresh secret from the kernel's generator.
    ///
    /// # Panics
    /// Where the kernel has no generator (a filter forbids getrandom): there is no safe way on.
    pub fn random() -> Self {
        Self(nonce())
    }

    /// A secret received as bytes.
    pub fn from_bytes(bytes: [u8; SIZE]) -> Self {
        Self(bytes)
    }

    /// Reads the 32 bytes of a secret, from an inherited pipe say.
    pub fn from_reader(from: &mut impl Read) -> io::Result<Self> {
        let mut secret = Self([0; SIZE]);
        from.read_exact(&mut secret.0)?;
        Ok(secret)
    }

    /// Writes the 32 bytes to a descriptor, a pipe to a child say.
    pub fn to_fd(&self, fd: impl AsFd) -> io::Result<()> {
        let mut rest = &self.0[..];
        while !rest.is_empty() {
            match rustix::io::write(&fd, rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => rest = &rest[written..],
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// A code over `message` that only who knows the secret can make; `label` says what it is for.
    pub fn code_of(&self, label: &[u8], message: &[u8]) -> [u8; SIZE] {
        let mut code =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        code.update(&(label.len() as u64).to_le_bytes());
        code.update(label);
        code.update(message);
        code.finalize().into_bytes().into()
    }

    fn code(&self, label: &[u8], hello: &[u8; HELLO], nonce: &[u8; SIZE]) -> Hmac<Sha256> {
        let mut code =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        // Each part has a fixed length except the label, and no label is the beginning of another.
        code.update(label);
        code.update(hello);
        code.update(nonce);
        code
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0 = [0; SIZE];
        // Keeps the compiler from leaving the store out: somebody might look.
        std::hint::black_box(&self.0);
    }
}

/// Are two codes the same? Takes the same time wherever they differ.
pub fn same_code(one: &[u8], other: &[u8]) -> bool {
    one.ct_eq(other).into()
}

/// Why a handshake was refused. For our own log; the other end sees a close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The first bytes are not those of a handshake: a stranger on the port.
    #[error("the other end does not speak this protocol")]
    Stranger,
    /// The other end runs another version of the protocol.
    #[error(
        "the other end speaks version {theirs} of the protocol, this one {VERSION}; run one build on all hosts"
    )]
    Version {
        /// Its version.
        theirs: u16,
    },
    /// The other end does not know the secret of this job.
    #[error("the other end does not know the secret of this job")]
    WrongSecret,
}

/// The end that opens the link.
#[derive(Debug)]
pub struct Initiator {
    secret: Secret,
    hello: [u8; HELLO],
}

impl Initiator {
    /// Starts a handshake; the bytes are to be sent.
    ///
    /// # Panics
    /// As [`Secret::random`].
    pub fn new(secret: &Secret) -> (Self, [u8; HELLO]) {
        let mut hello = [0; HELLO];
        let (head, fresh) = hello.split_at_mut(HELLO - SIZE);
        head[..MAGIC.len()].copy_from_slice(&MAGIC);
        head[MAGIC.len()..].copy_from_slice(&VERSION.to_le_bytes());
        fresh.copy_from_slice(&nonce());
        (
            Self {
                secret: secret.clone(),
                hello,
            },
            hello,
        )
    }

    /// Checks that the responder knows the secret; the bytes are to be sent, and the link is authenticated for this
    /// end.
    pub fn on_challenge(self, challenge: [u8; CHALLENGE]) -> Result<[u8; PROOF], Refused> {
        let (nonce, code) = challenge.split_at(SIZE);
        let nonce = nonce.try_into().expect("a nonce is the first half");
        self.secret
            .code(FROM_RESPONDER, &self.hello, nonce)
            .verify_slice(code)
            .map_err(|_| Refused::WrongSecret)?;
        Ok(self
            .secret
            .code(FROM_INITIATOR, &self.hello, nonce)
            .finalize()
            .into_bytes()
            .into())
    }
}

/// The end that accepts the link.
#[derive(Debug)]
pub struct Responder {
    secret: Secret,
    hello: [u8; HELLO],
    nonce: [u8; SIZE],
}

impl Responder {
    /// Answers the first message; the bytes are to be sent.
    ///
    /// # Panics
    /// As [`Secret::random`].
    pub fn new(secret: &Secret, hello: [u8; HELLO]) -> Result<(Self, [u8; CHALLENGE]), Refused> {
        let (magic, rest) = hello.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(Refused::Stranger);
        }
        let theirs = u16::from_le_bytes([rest[0], rest[1]]);
        if theirs != VERSION {
            return Err(Refused::Version { theirs });
        }
        let nonce = nonce();
        let code = secret
            .code(FROM_RESPONDER, &hello, &nonce)
            .finalize()
            .into_bytes();
        let mut challenge = [0; CHALLENGE];
        challenge[..SIZE].copy_from_slice(&nonce);
        challenge[SIZE..].copy_from_slice(&code);
        Ok((
            Self {
                secret: secret.clone(),
                hello,
                nonce,
            },
            challenge,
        ))
    }

    /// Checks that the initiator knows the secret: the link is authenticated.
    pub fn on_proof(self, proof: [u8; PROOF]) -> Result<(), Refused> {
        self.secret
            .code(FROM_INITIATOR, &self.hello, &self.nonce)
            .verify_slice(&proof)
            .map_err(|_| Refused::WrongSecret)
    }
}

/// A blocking handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The link failed, ended or timed out.
    #[error("the link failed during the handshake")]
    Io(#[from] io::Error),
    /// The other end was refused.
    #[error("handshake refused")]
    Refused(#[from] Refused),
}

/// The initiator's side over a blocking stream, whose own time-outs the caller has set to at most [`DEADLINE`]: the
/// whole handshake is given up after that time even when bytes keep trickling in.
pub fn connect(link: &mut (impl Read + Write), secret: &Secret) -> Result<(), HandshakeError> {
    let until = Instant::now() + DEADLINE;
    let (initiator, hello) = Initiator::new(secret);
    link.write_all(&hello)?;
    let proof = initiator.on_challenge(receive(link, until)?)?;
    link.write_all(&proof)?;
    Ok(link.flush()?)
}

/// The responder's side over a blocking stream; time as for [`connect`].
pub fn accept(link: &mut (impl Read + Write), secret: &Secret) -> Result<(), HandshakeError> {
    let until = Instant::now() + DEADLINE;
    let (responder, challenge) = Responder::new(secret, receive(link, until)?)?;
    link.write_all(&challenge)?;
    link.flush()?;
    Ok(responder.on_proof(receive(link, until)?)?)
}

/// Exactly `N` bytes before the deadline: a time-out of the socket restarts with each byte, this one does not.
fn receive<const N: usize>(link: &mut impl Read, until: Instant) -> io::Result<[u8; N]> {
    let mut message = [0; N];
    let mut have = 0;
    while have < N {
        match link.read(&mut message[have..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(more) => have += more,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
        if Instant::now() > until {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    Ok(message)
}

/// Fresh random bytes.
fn nonce() -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    let mut have = 0;
    while have < SIZE {
        match rustix::rand::getrandom(&mut bytes[have..], rustix::rand::GetRandomFlags::empty()) {
            Ok(more) => have += more,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => panic!("the kernel gives no random bytes: {errno}"),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn both_ends_of_one_job_agree() {
        let secret = Secret::random();
        let (initiator, hello) = Initiator::new(&secret);
        let (responder, challenge) = Responder::new(&secret, hello).unwrap();
        let proof = initiator.on_challenge(challenge).unwrap();
        assert_eq!(responder.on_proof(proof), Ok(()));
    }

    #[test]
    fn another_secret_is_refused_by_both_ends() {
        let (ours, theirs) = (Secret::random(), Secret::random());
        let (initiator, hello) = Initiator::new(&ours);
        let (responder, challenge) = Responder::new(&theirs, hello).unwrap();
        assert_eq!(initiator.on_challenge(challenge), Err(Refused::WrongSecret));
        // The initiator of the wrong job cannot make the proof either.
        assert_eq!(responder.on_proof([0; PROOF]), Err(Refused::WrongSecret));
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let secret = Secret::random();
        for bit in 0..HELLO * 8 {
            let (initiator, mut hello) = Initiator::new(&secret);
            hello[bit / 8] ^= 1 << (bit % 8);
            // Magic and version at once, a changed nonce by the initiator's check.
            if let Ok((_, challenge)) = Responder::new(&secret, hello) {
                assert_eq!(
                    initiator.on_challenge(challenge),
                    Err(Refused::WrongSecret),
                    "bit {bit}"
                );
            }
        }
        for bit in 0..CHALLENGE * 8 {
            let (initiator, hello) = Initiator::new(&secret);
            let (_, mut challenge) = Responder::new(&secret, hello).unwrap();
            challenge[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                initiator.on_challenge(challenge),
                Err(Refused::WrongSecret),
                "bit {bit}"
            );
        }
        for bit in 0..PROOF * 8 {
            let (initiator, hello) = Initiator::new(&secret);
            let (responder, challenge) = Responder::new(&secret, hello).unwrap();
            let mut proof = initiator.on_challenge(challenge).unwrap();
            proof[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                responder.on_proof(proof),
                Err(Refused::WrongSecret),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn replayed_and_reflected_messages_are_refused() {
        let secret = Secret::random();
        let (initiator, hello) = Initiator::new(&secret);
        let (responder, challenge) = Responder::new(&secret, hello).unwrap();
        let proof = initiator.on_challenge(challenge).unwrap();
        responder.on_proof(proof).unwrap();
        // A recorded session played again meets a fresh nonce on either side.
        let (again, _) = Responder::new(&secret, hello).unwrap();
        assert_eq!(again.on_proof(proof), Err(Refused::WrongSecret));
        let (fresh, _) = Initiator::new(&secret);
        assert_eq!(fresh.on_challenge(challenge), Err(Refused::WrongSecret));
        // The responder's own code, sent back to it as the proof.
        let (responder, challenge) = Responder::new(&secret, hello).unwrap();
        let reflected = challenge[SIZE..].try_into().unwrap();
        assert_eq!(responder.on_proof(reflected), Err(Refused::WrongSecret));
        // An initiator that is shown its own nonce and proof as a challenge.
        let (initiator, hello) = Initiator::new(&secret);
        let mut mirrored = [0; CHALLENGE];
        mirrored[..SIZE].copy_from_slice(&hello[HELLO - SIZE..]);
        mirrored[SIZE..].copy_from_slice(&proof);
        assert_eq!(initiator.on_challenge(mirrored), Err(Refused::WrongSecret));
    }

    #[test]
    fn strangers_and_other_versions_are_named() {
        let secret = Secret::random();
        let (_, mut hello) = Initiator::new(&secret);
        hello[6] = hello[6].wrapping_add(1);
        let theirs = u16::from_le_bytes([hello[6], hello[7]]);
        assert_eq!(
            Responder::new(&secret, hello).unwrap_err(),
            Refused::Version { theirs }
        );
        let mut http = [b' '; HELLO];
        http[..14].copy_from_slice(b"GET / HTTP/1.1");
        assert_eq!(
            Responder::new(&secret, http).unwrap_err(),
            Refused::Stranger
        );
    }

    #[test]
    fn blocking_ends_meet_over_a_socket() {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let secret = Secret::random();
        let theirs = secret.clone();
        let other = std::thread::spawn(move || accept(&mut far, &theirs));
        connect(&mut near, &secret).unwrap();
        other.join().unwrap().unwrap();
    }

    #[test]
    fn a_wrong_secret_over_a_socket_ends_both_sides() {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let other = std::thread::spawn(move || accept(&mut far, &Secret::random()));
        let refused = connect(&mut near, &Secret::random()).unwrap_err();
        assert!(
            matches!(refused, HandshakeError::Refused(Refused::WrongSecret)),
            "{refused:?}"
        );
        drop(near);
        // It saw a close, nothing else.
        assert!(matches!(
            other.join().unwrap().unwrap_err(),
            HandshakeError::Io(_)
        ));
    }

    #[test]
    fn a_slow_sender_is_given_up() {
        /// One byte at a time, so that no read ever times out by itself.
        struct Trickle(Vec<u8>);
        impl Read for Trickle {
            fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
                std::thread::sleep(DEADLINE / 8);
                to[0] = self.0.pop().unwrap_or(0);
                Ok(1)
            }
        }
        impl Write for Trickle {
            fn write(&mut self, from: &[u8]) -> io::Result<usize> {
                Ok(from.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut link = Trickle(Vec::new());
        let HandshakeError::Io(error) = accept(&mut link, &Secret::random()).unwrap_err() else {
            panic!("a slow sender is an error of the link")
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn secrets_travel_by_descriptor_and_are_not_printed() {
        let secret = Secret::random();
        assert_eq!(format!("{secret:?}"), "Secret(hidden)");
        assert_ne!(secret, Secret::random());
        let (mut from, to) = io::pipe().unwrap();
        secret.to_fd(&to).unwrap();
        assert_eq!(Secret::from_reader(&mut from).unwrap(), secret);
        assert_eq!(Secret::from_bytes(secret.0), secret);
        drop(to);
        assert!(Secret::from_reader(&mut from).is_err());
    }
}
