"""The RPCs of RegistryService: the models of the registry."""

from __future__ import annotations

from cloud_server import authorization
from cloud_server.context import CloudContext
from cloud_server.entities import ModelKind
from cloud_server.servicers.convert import model_to
from diredi.rpc.caller import Context, caller_identity
from diredi.rpc.convert import kind_from
from diredi.rpc.v1 import registry_pb2 as pb
from diredi.rpc.v1 import registry_pb2_grpc as stubs


class RegistryServicer(stubs.RegistryServiceServicer):
    """Answers as `proto/diredi/v1/registry.proto` says. It only reads, so it needs no service of its own."""

    def __init__(self, context: CloudContext) -> None:
        self._context = context

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        authorization.require_operator_or_site(caller_identity(context))
        kind = kind_from(request.kind)
        models = await self._context.read(lambda r: r.models.all(ModelKind(kind) if kind else None))
        return pb.ListModelsResponse(models=[model_to(model) for model in models])

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        authorization.require_operator_or_site(caller_identity(context))
        model = await self._context.read(lambda r: r.models.get(request.id))
        return pb.GetModelResponse(model=model_to(model))
