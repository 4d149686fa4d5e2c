"""The page of what left: every byte that was sent to the cloud, by message and day."""

from __future__ import annotations

import csv
import io
from collections import Counter
from datetime import UTC, date, datetime, timedelta

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from diredi.rpc.byte_counter import EgressMeter
from diredi.rpc.message_texts import egress_name
from diredi.web.app import Viewing, pages_of
from diredi.web.charts import MOST_SERIES
from user_domain.servicer import SiteParts

SHOWN_DAYS = 14
OTHERS = "others"


class MessageView(BaseModel):
    """What was sent in one kind of message."""

    message: str
    plain: str
    bytes: int
    messages: int


class DayView(BaseModel):
    """What was sent on one day."""

    day: str
    bytes: dict[str, int]


class SentView(BaseModel):
    """Every byte that this site has sent to the cloud."""

    site: str
    since: str
    total: int
    messages: list[MessageView]
    days: list[DayView]
    private_bytes: int
    train_images: int
    held_out_images: int
    shown_bytes: int
    """What browsers inside the site were shown by these pages."""
    problem: str

    def series(self) -> list[str]:
        """Return the names that the chart shows, the largest first."""
        names = [one.message for one in self.messages]
        return names[: MOST_SERIES - 1] + ([OTHERS] if len(names) >= MOST_SERIES else [])

    def columns(self) -> list[tuple[str, dict[str, int]]]:
        """Return the bars of the chart: a day, and its bytes by series."""
        series, bars = self.series(), []
        for day in self.days:
            values: Counter[str] = Counter()
            for name, count in day.bytes.items():
                values[name if name in series else OTHERS] += count
            bars.append((f"{date.fromisoformat(day.day):%-d %b}", dict(values)))
        return bars


def make_router(parts: SiteParts, shown: EgressMeter) -> APIRouter:
    """Return the handlers of the page of what left."""
    api = APIRouter(tags=["what left"])

    @api.get("/sent", response_model=SentView, summary="Every byte that left, by message and day.")
    async def show(request: Request, session: Viewing) -> Response:
        return pages_of(request).answer(request, "sent.html", _everything(parts, shown), session=session)

    @api.get("/sent.csv", summary="The same by day and message, as a table for an auditor.", response_class=Response)
    async def export(session: Viewing) -> Response:
        text = io.StringIO()
        table = csv.writer(text)
        table.writerow(["day", "message", "bytes"])
        for day, counts in parts.meter.days().items():
            table.writerows((day, message, count) for message, count in counts.items())
        for message, count in _before_days(parts.meter).items():
            table.writerow([f"since {parts.meter.since[:10]}, day not recorded", message, count])
        headers = {"content-disposition": f'attachment; filename="{parts.site}-what-left.csv"'}
        return Response(text.getvalue(), media_type="text/csv", headers=headers)

    return api


def _everything(parts: SiteParts, shown: EgressMeter) -> SentView:
    meter, data = parts.meter, parts.data()
    numbers = meter.messages()
    today = datetime.now(UTC).date()
    recorded = meter.days()
    days = [(today - timedelta(days=ago)).isoformat() for ago in reversed(range(SHOWN_DAYS))]
    messages = [
        MessageView(message=_short(name), plain=egress_name(_short(name)), bytes=count, messages=numbers.get(name, 0))
        for name, count in meter.totals().items()
    ]
    return SentView(
        site=parts.site,
        since=meter.since,
        total=meter.total_bytes,
        messages=sorted(messages, key=lambda one: one.bytes, reverse=True),
        days=[DayView(day=day, bytes={_short(k): v for k, v in recorded.get(day, {}).items()}) for day in days],
        private_bytes=data.bytes,
        train_images=data.train_images,
        held_out_images=data.held_out_images,
        shown_bytes=shown.total_bytes,
        problem=meter.problem,
    )


def _before_days(meter: EgressMeter) -> dict[str, int]:
    """Return what was counted before days were recorded, or longer ago than they are kept."""
    left = meter.totals()
    for counts in meter.days().values():
        for message, count in counts.items():
            left[message] -= count
    return {message: count for message, count in left.items() if count > 0}


def _short(message: str) -> str:
    return message.removeprefix("diredi.v1.")
