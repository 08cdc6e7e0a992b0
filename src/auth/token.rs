//! JSON Web Tokens of the operator's application.
