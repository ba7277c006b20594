//! What the gRPC doors of all daemons have in common: how a service is set up, and how a call with
//! one request and one answer is written.
//!
//! A door says itself whom it lets in: [`unary!`](crate::unary) names the function that does.

use std::pin::Pin;

use tonic::{Response, Status};

/// A future as `async_trait` writes it: macros inside its traits are expanded after it.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send + 'a>>;

/// A server of one service, with the limits and the compressions of all.
#[macro_export]
macro_rules! served {
    ($server:expr) => {
        $server
            .max_decoding_message_size($crate::limits::FRAME_BYTES_MAX)
            .max_encoding_message_size($crate::limits::FRAME_BYTES_MAX)
            .accept_compressed(::tonic::codec::CompressionEncoding::Gzip)
            .accept_compressed(::tonic::codec::CompressionEncoding::Zstd)
    };
}

/// Calls of a service, each with one request and one answer, as functions of its trait.
///
/// First the field of the door that answers them and the function that lets them in: that takes
/// the door, the name of the call and its metadata, and gives what is held while the call lasts,
/// and whose the call is. Then of each call its name, its request and its answer. The field has a
/// function of each call's name; it takes whose the call is, and the request.
#[macro_export]
macro_rules! unary {
    ($answers:ident after $admit:ident; $($call:ident $request:ident $response:ident;)*) => {
        $(
            fn $call<'life0, 'async_trait>(
                &'life0 self,
                request: ::tonic::Request<$crate::wire::$request>,
            ) -> $crate::service::Boxed<'async_trait, $crate::wire::$response>
            where
                'life0: 'async_trait,
                Self: 'async_trait,
            {
                Box::pin(async move {
                    let (_pass, whose) = self.$admit(stringify!($call), request.metadata())?;
                    let answer = self.$answers.$call(&whose, request.into_inner()).await?;
                    Ok(::tonic::Response::new(answer))
                })
            }
        )*
    };
}
