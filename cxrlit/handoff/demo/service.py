"""The HTTP service: predicts uploaded files, and serves the page.

It stores nothing: files and predictions stay in memory until they are answered. The network predicts one image at a
time, in the order of arrival.
"""

import asyncio

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from cxrlit.core.errors import BundleError
from cxrlit.handoff.demo.answers import make_answer, make_health
from cxrlit.handoff.demo.guard import Guard
from cxrlit.handoff.demo.intake import Intake, Limits
from cxrlit.handoff.demo.openapi import describe_service
from cxrlit.handoff.demo.page import make_page
from cxrlit.handoff.predictor import Predictor

QUERIES = {(): True, (("pictures", "true"),): True, (("pictures", "false"),): False}
"""Accepted queries of a prediction, and whether its answer has pictures."""


def make_app(predictor: Predictor, limits: Limits | None = None) -> ASGIApp:
    """Make the service as an ASGI application.

    Args:
        predictor: Predictor of the bundle.
        limits: Limits of uploads; None: the defaults.
    """
    service = Service(predictor, limits or Limits())
    app = Starlette(
        routes=[
            Route("/", service.show_page),
            Route("/health", service.tell_health),
            Route("/openapi.json", service.describe),
            Route("/predict", service.predict, methods=["POST"]),
        ],
        exception_handlers={HTTPException: _refuse, BundleError: _fail},
    )
    app.router.redirect_slashes = False
    return Guard(app)


class Service:
    """Handlers of the routes.

    Args:
        predictor: Predictor of the bundle.
        limits: Limits of uploads.
    """

    def __init__(self, predictor: Predictor, limits: Limits) -> None:
        self.predictor, self.intake = predictor, Intake(limits)
        self._network = asyncio.Lock()
        self._page = make_page(predictor, limits.file_bytes)
        self._description = describe_service()

    async def show_page(self, request: Request) -> Response:
        """Serve the page. It contains its own content policy, except for ``frame-ancestors``, which needs a header."""
        return HTMLResponse(self._page, headers={"Content-Security-Policy": "frame-ancestors 'none'"})

    async def tell_health(self, request: Request) -> Response:
        """Answer with the state of the service and its model."""
        return _send_json(make_health(self.predictor.bundle, self.intake.n_files).model_dump_json())

    async def describe(self, request: Request) -> Response:
        """Answer with the OpenAPI description."""
        return JSONResponse(self._description)

    async def predict(self, request: Request) -> Response:
        """Answer with the prediction for the file in the request's body.

        Raises:
            HTTPException: The query or the file cannot be used.
        """
        query = tuple(request.query_params.multi_items())
        if query not in QUERIES:
            raise HTTPException(400, "the only query parameter is pictures=true or pictures=false")
        async with self.intake.receive(request) as content, self._network:
            if await request.is_disconnected():
                return Response(status_code=408)  # the client is gone
            predict = self.predictor.predict_content
            prediction = await run_in_threadpool(predict, content, heatmaps=QUERIES[query])
        if prediction.reason:
            raise HTTPException(422, prediction.reason)
        answer = await run_in_threadpool(make_answer, self.predictor, prediction)
        return _send_json(answer.model_dump_json())


def _send_json(text: str) -> Response:
    return Response(text, media_type="application/json")


def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


def _fail(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 500)
