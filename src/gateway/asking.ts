import type { CallBody } from '#calls/call.ts'
import type { CatalogModel } from '#contracts/catalog.ts'
import type { FastifyRequest } from 'fastify'
import { callerOfRequest } from './access.ts'
import type { Question } from './ask.ts'
import { idempotencyKeyOf } from './exchange.ts'
import { payerFor, type GatewayDeps } from './gateway-deps.ts'
import { FITTED, UNBOUNDED_TOKENS } from './output-bound.ts'
import { Refusal } from './refusal.ts'

/** What a request asks, in no client's own shape. */
export interface Asking {
  readonly question: Omit<Question, 'signal' | 'onHeld' | 'onDelta'>
  /** Whether any route gives its answer piece by piece: of the others it comes in one. */
  readonly isStreamed: boolean
  /** How long its stream may be silent. */
  readonly keepAliveMs: number
}

/** @throws Refusal when the key may not ask for the model, or nothing pays for it */
export async function askingOf(
  deps: GatewayDeps,
  request: FastifyRequest,
  asked: { readonly model: string; readonly body: CallBody; readonly kind: string },
): Promise<Asking> {
  const { body } = asked
  const { payer, model } = await payerFor(deps, callerOfRequest(request), asked.model)
  refuseOtherKind(model, body)
  const isUnbounded = 'maxTokens' in body && body.maxTokens === UNBOUNDED_TOKENS
  const tight = payer.tight ?? (isUnbounded ? FITTED : undefined)
  return {
    question: { ...asked, payer: { ...payer, tight }, idempotencyKey: idempotencyKeyOf(request) },
    isStreamed: model.routes.some(({ capabilities }) => capabilities.streaming),
    keepAliveMs: deps.keepAliveMs,
  }
}

/** @throws Refusal when a model that embeds is asked to answer, or the other way round */
function refuseOtherKind({ name, kind }: CatalogModel, body: CallBody): void {
  if ((kind === 'embedding') === 'input' in body) return
  const does = kind === 'embedding' ? 'embeds texts, and answers none' : 'answers, and embeds nothing'
  throw new Refusal('no_route', `${name} ${does}.`, { param: 'model', remedy: 'Ask for another model.' })
}
