"""Steps that a body or its saga calls, and what undoes them, with hooks around them."""

from typing import Any, Self, Unpack

from durable_worker.protocol.base import Payload
from durable_worker.protocol.payload import plain_json
from durable_worker.replay.arguments import caller
from durable_worker.replay.chains import Chain, Performed
from durable_worker.replay.interception import Method, StepOperation
from durable_worker.replay.performing import StepCall, call_step
from durable_worker.replay.saga import Compensations
from durable_worker.replay.steps import Saga, StepCalls, StepOptions


class InterceptedSteps(StepCalls):
    _chain: Chain
    _step_method: Method = "step"

    def step(
        self,
        step: Any,
        input: object = None,
        /,
        *,
        returns: Any = None,
        compensate: Any = None,
        **options: Unpack[StepOptions],
    ) -> Performed:
        location = caller()
        call = self._step_call(step, returns, location, **options)
        undo = None
        if compensate is not None:
            self._refuse_if_over()
            undo = self._step_call(compensate, None, location)

        def perform(operation: StepOperation) -> Performed:
            token, changed = self._journal.next_token(), _changed(call, operation)
            if undo is None:
                return call_step(self._replay, token, changed, operation.input)
            return self._compensations.watch(token, changed, operation.input, undo)

        return self._chain.awaited(self._asked(self._step_method, call, input), perform)

    def _intercept(self, chain: Chain, compensations: Compensations) -> None:
        self._chain = chain
        self._compensations = compensations
        compensations.call_undo = self._call_undo

    def _call_undo(self, call: StepCall, value: Payload) -> Performed:
        shown = plain_json(value)

        def perform(operation: StepOperation) -> Performed:
            given = value if operation.input is shown else operation.input
            token = self._journal.next_token()
            return call_step(self._replay, token, _changed(call, operation), given)

        return self._chain.awaited(self._asked("compensation", call, shown), perform)

    def _asked(self, method: Method, call: StepCall, input: object) -> StepOperation:
        return StepOperation(
            method=method,
            name=call.name,
            asked_at=call.location,
            context=self._chain.plain,
            input=input,
            retries=call.retry,
            timeout=call.limit,
            partition=call.partition,
        )


class InterceptedSaga(InterceptedSteps, Saga):
    _step_method = "saga.step"

    def intercept(self, chain: Chain) -> Self:
        self._intercept(chain, self._compensations)
        return self


def _changed(call: StepCall, operation: StepOperation) -> StepCall:
    return StepCall(
        operation.name,
        operation.partition,
        operation.retries,
        operation.timeout,
        call.decoder,
        call.location,
    )
