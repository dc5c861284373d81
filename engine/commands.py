"""The commands that programs send, in one place; the docstring of each says what it does."""

from engine.domain.campaign import CampaignPrice
from engine.domain.coupon import Discount
from engine.domain.customer import Beacon
from engine.domain.product import Choice, Option
from engine.domain.store.campaigns import CancelCampaign, ScheduleCampaign
from engine.domain.store.cancelling import CancelLine, CancelOrder, RejectOrder
from engine.domain.store.coupons import CreateCoupon, IssueCoupon
from engine.domain.store.following import FollowStore, UnfollowStore
from engine.domain.store.kitchen import (
    AcceptOrder,
    MarkItemReady,
    MarkReady,
    MarkServed,
    RecallOrder,
    StartCooking,
)
from engine.domain.store.menu import AdjustStock, PutProduct, SetSoldOut
from engine.domain.store.orders import CreateOrder, Destination, Wish
from engine.domain.store.payments import ApprovePayment, PreparePayment
from engine.domain.store.reconciling import QueryPayment, ResolvePayment
from engine.domain.store.refunds import RefundPayment
from engine.domain.store.repaying import ResolveRefund
from engine.domain.store.settling import SettleOrder, SettleTable, TillPart
from engine.domain.store.shop import CloseStore, ConfigureStore, OpenStore, PauseOrders, ResumeOrders
from engine.domain.store.visits import IdentifyCustomer
from engine.domain.table.calls import AnswerCall, CallStaff
from engine.domain.table.cart import AddToCart, ChangeQuantity, RemoveFromCart, SubmitCart
from engine.domain.table.sitting import CloseTable, OpenTable
from engine.domain.user.messages import SendEvent
from engine.domain.user.notices import Notify
from engine.domain.user.tasks import AdvanceTask, CleanupTasks, CompleteTask, FailTask, StartTask

__all__ = [
    "AcceptOrder",
    "AddToCart",
    "AdjustStock",
    "AdvanceTask",
    "AnswerCall",
    "ApprovePayment",
    "Beacon",
    "CallStaff",
    "CampaignPrice",
    "CancelCampaign",
    "CancelLine",
    "CancelOrder",
    "ChangeQuantity",
    "Choice",
    "CleanupTasks",
    "CloseStore",
    "CloseTable",
    "CompleteTask",
    "ConfigureStore",
    "CreateCoupon",
    "CreateOrder",
    "Destination",
    "Discount",
    "FailTask",
    "FollowStore",
    "IdentifyCustomer",
    "IssueCoupon",
    "MarkItemReady",
    "MarkReady",
    "MarkServed",
    "Notify",
    "OpenStore",
    "OpenTable",
    "Option",
    "PauseOrders",
    "PreparePayment",
    "PutProduct",
    "QueryPayment",
    "RecallOrder",
    "RefundPayment",
    "RejectOrder",
    "RemoveFromCart",
    "ResolvePayment",
    "ResolveRefund",
    "ResumeOrders",
    "ScheduleCampaign",
    "SendEvent",
    "SetSoldOut",
    "SettleOrder",
    "SettleTable",
    "StartCooking",
    "StartTask",
    "SubmitCart",
    "TillPart",
    "UnfollowStore",
    "Wish",
]
