"""Story 2 over gRPC, the receiver: the token stands in the metadata, and an interceptor judges each call."""

from collections.abc import Callable
from typing import Any, Final

import grpc

from s2s_fastapi import AuthenticationError, AuthorizationError, KeysUnavailable, Requirement, TokenVerifier

_KINDS: Final = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


class ServiceTokens(grpc.ServerInterceptor):
    """Let in whom the requirement lets in, for every method of the server, streams too."""

    def __init__(self, verifier: TokenVerifier, requirement: Requirement) -> None:
        self._verifier = verifier
        self._requirement = requirement

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """Put the judgement before the method: an interceptor itself must not wait, a method may."""
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        metadata = handler_call_details.invocation_metadata
        method = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream

        def judged(request: Any, context: grpc.ServicerContext) -> Any:
            self._judge(metadata, context)
            return method(request, context)

        kind = _KINDS[handler.request_streaming, handler.response_streaming]
        return kind(judged, handler.request_deserializer, handler.response_serializer)

    def _judge(self, metadata: Any, context: grpc.ServicerContext) -> None:
        given = [value for name, value in metadata if name == "authorization"]
        scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        if scheme.lower() != "bearer":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "A token is required.")
        try:
            self._requirement.check(self._verifier.verify(token))
        except AuthenticationError as error:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, error.detail)
        except AuthorizationError as error:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, error.detail)
        except KeysUnavailable as error:
            context.abort(grpc.StatusCode.UNAVAILABLE, error.detail)
