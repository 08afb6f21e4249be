"""Every address of the web process. What is not the API, metrics or a file is the console's."""

from django.urls import path, re_path
from drf_spectacular.views import SpectacularAPIView

from apps.accounts import api as accounts
from apps.audit import api as audit
from apps.fleet import api as fleet
from apps.live import pages
from apps.policies import api as policies
from apps.policies import training_api as training
from apps.telemetry import api as telemetry
from apps.telemetry import exposition
from apps.telemetry import routing_api as routing
from apps.whatif import api as whatif

_V1 = "api/v1/"

urlpatterns = [
    path(_V1 + "session/", accounts.SessionView.as_view()),
    path(_V1 + "me/", accounts.MeView.as_view()),
    path(_V1 + "tokens/", accounts.TokenList.as_view()),
    path(_V1 + "tokens/<int:pk>/", accounts.TokenDetail.as_view()),
    path(_V1 + "clusters/", fleet.ClusterList.as_view()),
    path(_V1 + "fleet/", telemetry.FleetView.as_view()),
    path(_V1 + "fleet/series/", telemetry.FleetSeriesView.as_view()),
    path(_V1 + "nodes/", fleet.NodeList.as_view()),
    path(_V1 + "nodes/<str:name>/", fleet.NodeDetail.as_view()),
    path(_V1 + "nodes/<str:name>/override/", fleet.OverrideView.as_view()),
    path(_V1 + "nodes/<str:name>/pin/", fleet.PinView.as_view()),
    path(_V1 + "nodes/<str:name>/release/", fleet.ReleaseView.as_view()),
    path(_V1 + "nodes/<str:name>/resize/", fleet.ResizeView.as_view()),
    path(_V1 + "nodes/<str:name>/series/", telemetry.NodeSeriesView.as_view()),
    path(_V1 + "nodes/<str:name>/decisions/", telemetry.NodeDecisionsView.as_view()),
    path(_V1 + "routing/", routing.RoutingView.as_view()),
    path(_V1 + "routing/picks/", routing.PickList.as_view()),
    path(_V1 + "routing/picks/<str:request_id>/", routing.PickDetail.as_view()),
    path(_V1 + "routing/tickets/", routing.TicketList.as_view()),
    path(_V1 + "enrolments/", fleet.EnrolmentList.as_view()),
    path(_V1 + "enrol/", fleet.EnrolView.as_view()),
    path(_V1 + "events/", audit.EventList.as_view()),
    path(_V1 + "audit/", audit.AuditList.as_view()),
    path(_V1 + "whatifs/", whatif.WhatIfList.as_view()),
    path(_V1 + "whatifs/<str:uid>/", whatif.WhatIfDetail.as_view(), name="whatif-detail"),
    path(_V1 + "whatifs/<str:uid>/figure/", whatif.WhatIfFigure.as_view()),
    path(_V1 + "policies/", policies.PolicyList.as_view()),
    path(_V1 + "policies/assignments/", policies.AssignmentList.as_view()),
    path(_V1 + "policies/own/", policies.OwnControllerView.as_view()),
    path(_V1 + "policies/rollback/", policies.RollBackView.as_view()),
    path(_V1 + "policies/<str:digest>/", policies.PolicyDetail.as_view()),
    path(_V1 + "policies/<str:digest>/artefact/", policies.PolicyArtefactView.as_view()),
    path(_V1 + "policies/<str:digest>/judge/", policies.PolicyJudge.as_view()),
    path(_V1 + "policies/<str:digest>/use/", policies.PolicyUseView.as_view()),
    path(_V1 + "training/", training.TrainingList.as_view()),
    path(_V1 + "training/schedule/", training.TrainingSchedule.as_view()),
    path(_V1 + "training/<str:uid>/", training.TrainingDetail.as_view()),
    path(_V1 + "schema/", SpectacularAPIView.as_view(authentication_classes=[], permission_classes=[]), name="schema"),
    path(_V1 + "docs/", pages.api_docs),
    path("metrics", exposition.metrics),
    path("healthz", pages.health),
    re_path(r"^(?:api|agents)(?:/.*)?$", pages.unknown_api_path),
    re_path(r"^.*$", pages.console),
]
handler400, handler403, handler404, handler500 = (f"apps.lib.error_pages.error_{code}" for code in (400, 403, 404, 500))
