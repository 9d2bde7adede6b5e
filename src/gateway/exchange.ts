import type { FastifyReply, FastifyRequest } from 'fastify'
import type { HeldMoney } from '#calls/call.ts'
import { formatNano } from '#domain/money.ts'
import type { Reply } from './ask.ts'

/** Aborts when the client goes away before its answer is written, or when the server must end. */
export function abortWithClient(reply: FastifyReply): AbortController {
  const controller = new AbortController()
  const { openCalls } = reply.server
  openCalls.add(controller)
  reply.raw.once('close', () => {
    openCalls.delete(controller)
    if (!reply.raw.writableFinished) controller.abort(new Error('the client is gone'))
  })
  return controller
}

/** What is known of a call before its answer. */
export function tellHeld(reply: FastifyReply, { callId, route, balanceClass, held, currency }: HeldMoney): void {
  void reply.headers({
    'x-purser-call-id': callId,
    'x-purser-route': route,
    'x-purser-balance-class': balanceClass,
    'x-purser-held': `${formatNano(held)} ${currency}`,
  })
}

/** What it cost, and what its envelope can still pay. */
export function tellPaid(reply: FastifyReply, { callId, receipt, remaining, isReplayed }: Reply): void {
  if (isReplayed) void reply.header('idempotency-replayed', 'true')
  void reply.headers({ 'x-purser-call-id': callId, ...(!receipt && { 'x-purser-cost': '0' }) })
  if (!receipt) return
  const { route, balanceClass, currency, charged, attempts } = receipt
  void reply.removeHeader('x-purser-held').headers({
    'x-purser-route': route,
    'x-purser-balance-class': balanceClass,
    'x-purser-cost': `${formatNano(charged)} ${currency}`,
    'x-purser-attempts': attempts,
    ...(remaining !== undefined && { 'x-purser-remaining': `${formatNano(remaining)} ${currency}` }),
  })
}

/** The same in the last event of a stream, whose headers are gone by then. */
export function paidInWords({ callId, receipt, remaining }: Reply): object {
  if (!receipt) return { purser: { call_id: callId, cost: '0' } }
  const { route, balanceClass, currency, charged, attempts } = receipt
  return {
    purser: {
      call_id: callId,
      route,
      balance_class: balanceClass,
      cost: formatNano(charged),
      currency,
      attempts,
      ...(remaining !== undefined && { remaining: formatNano(remaining) }),
    },
  }
}

export function idempotencyKeyOf(request: FastifyRequest): string | readonly string[] | undefined {
  return request.headers['idempotency-key']
}
