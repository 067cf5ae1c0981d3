"""Selling by itself: from exit signals to landed sales, at most one live transaction of an exit (docs/selling.md)."""

from __future__ import annotations

from lasersell_sync.autosell.auto_seller import AutoSeller
from lasersell_sync.autosell.exit_key import ExitKey
from lasersell_sync.autosell.journal import Attempt, BuyRecord, ExitRecord, Journal, Step
from lasersell_sync.autosell.legs import LegPlan, LegsReport
from lasersell_sync.autosell.reports import BuyReport, Refusal, SellReport
from lasersell_sync.autosell.services import SellPolicy

__all__ = [
    "Attempt",
    "AutoSeller",
    "BuyRecord",
    "BuyReport",
    "ExitKey",
    "ExitRecord",
    "Journal",
    "LegPlan",
    "LegsReport",
    "Refusal",
    "SellPolicy",
    "SellReport",
    "Step",
]
