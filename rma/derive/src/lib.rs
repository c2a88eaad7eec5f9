//! `#[derive(Element)]`: a structure of the program as the element of a window.
//!
//! The macro reads the structure and hands its fields to `windlass::__element`, which does all
//! the proving and is sound by itself. What is decided here is what the compiler cannot say well:
//! that the layout is C's, so that all programs of a job agree on it, and that there are fields.
#![forbid(unsafe_code)]

use proc_macro2::TokenStream;
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Attribute, Data, DeriveInput, Error, Index, Result, Token, parse_macro_input};

/// Makes a structure the element of a window.
///
/// It must be `#[repr(C)]` or `#[repr(transparent)]`, `Copy`, without type parameters, and without
/// padding; each field must be an element itself. What does not hold is an error of the
/// compiler. Padding that a layout needs becomes a field:
///
/// ```
/// #[derive(Clone, Copy, windlass::Element)]
/// #[repr(C)]
/// struct Sample {
///     at: f64,
///     count: u32,
///     _pad: [u8; 4],
/// }
/// ```
#[proc_macro_derive(Element)]
pub fn element(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand(&input)
        .unwrap_or_else(Error::into_compile_error)
        .into()
}

fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let Data::Struct(data) = &input.data else {
        let why = "only a structure can be an element of a window: an enum has invalid bit \
                   patterns, and a union may have bytes that belong to no field";
        return Err(Error::new_spanned(&input.ident, why));
    };
    if !input.generics.params.is_empty() {
        let why = "an element of a window has no parameters: whether there is padding depends on \
                   them; derive it for a structure with the types written out";
        return Err(Error::new_spanned(&input.generics, why));
    }
    if !has_layout(&input.attrs)? {
        let why = "an element of a window needs a layout that all programs agree on: add \
                   `#[repr(C)]`";
        return Err(Error::new_spanned(&input.ident, why));
    }
    if data.fields.is_empty() {
        let why = "an element of a window must not be zero-sized: give it a field";
        return Err(Error::new_spanned(&input.ident, why));
    }
    let name = &input.ident;
    let fields = data.fields.iter().enumerate().map(|(at, field)| {
        let member = match &field.ident {
            Some(ident) => ident.to_token_stream(),
            None => Index::from(at).to_token_stream(),
        };
        let ty = &field.ty;
        // What is wrong with a field is told where its type stands.
        quote_spanned!(ty.span()=> #member: #ty)
    });
    Ok(quote! {
        ::windlass::__element! { #name { #(#fields),* } }
    })
}

/// Is there a `repr` of C's layout, or of that of the only field?
fn has_layout(attributes: &[Attribute]) -> Result<bool> {
    let mut found = false;
    for attribute in attributes.iter().filter(|a| a.path().is_ident("repr")) {
        attribute.parse_nested_meta(|meta| {
            found |= meta.path.is_ident("C") || meta.path.is_ident("transparent");
            // `align(8)`, `packed(2)`.
            if meta.input.peek(syn::token::Paren) {
                let _: proc_macro2::Group = meta.input.parse()?;
            } else if !meta.input.is_empty() && !meta.input.peek(Token![,]) {
                return Err(meta.error("this is no layout"));
            }
            Ok(())
        })?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(input: &str) -> String {
        let input = syn::parse_str(input).expect("the test's input is a type");
        expand(&input).expect_err("accepted").to_string()
    }

    #[test]
    fn layouts_are_found_among_other_attributes() {
        for good in [
            "#[repr(C)] struct S { a: u8 }",
            "/** doc */ #[allow(x)] #[repr(align(8), C)] struct S(u64);",
            "#[repr(transparent)] struct S(f32);",
            "#[repr(C, packed(2))] pub(crate) struct S { a: u8, b: u32 }",
        ] {
            let input = syn::parse_str(good).expect("a type");
            let tokens = expand(&input).expect(good).to_string();
            assert!(tokens.contains("__element ! { S {"), "{tokens}");
        }
        assert!(refusal("struct S { a: u8 }").contains("#[repr(C)]"));
        assert!(refusal("#[repr(packed)] struct S { a: u8 }").contains("#[repr(C)]"));
    }

    #[test]
    fn refusals_say_why() {
        assert!(refusal("#[repr(u8)] enum E { A }").contains("only a structure"));
        assert!(refusal("#[repr(C)] union U { a: u8 }").contains("only a structure"));
        assert!(refusal("#[repr(C)] struct S<T> { a: T }").contains("no parameters"));
        assert!(refusal("#[repr(C)] struct S<'a> { a: &'a u8 }").contains("no parameters"));
        assert!(refusal("#[repr(C)] struct S<const N: usize>([u8; N]);").contains("parameters"));
        assert!(refusal("#[repr(C)] struct S;").contains("zero-sized"));
    }
}
