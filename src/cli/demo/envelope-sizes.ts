import type { Report } from '#contracts/report.ts'
import { formatNano } from '#domain/money.ts'
import { chargeOf, NO_USAGE, plainPrices, type Prices } from '#domain/pricing.ts'
import { readNano } from './ledger-total.ts'
import type { Model } from './stage.ts'

type Route = Model['routes'][number]

/**
 * A credit pocket that pays the first call of a run and no more: enough for a short prompt and answer, less than the
 * worst case of a call that reads. Whatever the question and the documents are, the run changes to direct money then.
 */
export function shortCredit(model: Model, question: string): string | undefined {
  const route = model.routes.find(({ balanceClass }) => balanceClass === 'credit')
  if (!route) return undefined
  const input = FIRST_PROMPT_TOKENS + Buffer.byteLength(question)
  return roundUp(chargeOf(pricesOf(route), { ...NO_USAGE, input, output: FIRST_ANSWER_TOKENS }))
}

/** What the worst case of the first call is made of, with some room; every other call may answer with more than twice as much. */
const FIRST_PROMPT_TOKENS = 1_000
const FIRST_ANSWER_TOKENS = 500

/**
 * An envelope that cannot last for a run like this one: the cost of all its calls but the last, and a little less than
 * what that one must hold. In direct money, at the prices of the last route that takes it.
 */
export function tightDirect(model: Model, like: Report): string {
  const route = dearestDirect(model)
  const served = like.calls.flatMap(({ attempts, answeredBy }) =>
    attempts.filter(({ number }) => number === answeredBy),
  )
  const last = served.at(-1)
  if (!last) throw new Error('The first run made no call that could be compared with.')
  const prices = pricesOf(route)
  const before = served.slice(0, -1).map(({ tokens }) => (tokens ? chargeOf(prices, { ...NO_USAGE, ...tokens }) : 0n))
  const lastRoute = model.routes.find(({ name }) => name === last.route) ?? route
  const held = (readNano(last.held.amount) * prices.outputNanoPerMillion) / pricesOf(lastRoute).outputNanoPerMillion
  return formatNano(before.reduce((sum, nano) => sum + nano, (held * 19n) / 20n))
}

/** More than a run can need whose prompts are as long as they may be, in direct money. */
export function ampleDirect(model: Model): string {
  const route = dearestDirect(model)
  return roundUp(chargeOf(pricesOf(route), { ...NO_USAGE, input: AMPLE_PROMPT_TOKENS, output: AMPLE_ANSWER_TOKENS }))
}

/** The worst case of all calls of a run at the same time, with room. */
const AMPLE_PROMPT_TOKENS = 80_000
const AMPLE_ANSWER_TOKENS = 10_000

/** Several times an amount. */
export function times(amount: string, factor: bigint): string {
  return formatNano(readNano(amount) * factor)
}

/** The last route of a model is the one that fallbacks end at. */
function dearestDirect(model: Model): Route {
  const route = model.routes.findLast(({ balanceClass }) => balanceClass === 'direct')
  if (!route) throw new Error(`The catalog model ${model.name} has no route that direct money pays.`)
  return route
}

function pricesOf({ name, price }: Route): Prices {
  if (!price) throw new Error(`The route ${name} has no price.`)
  return plainPrices({
    inputNanoPerMillion: readNano(price.inputPerMillionTokens.amount),
    cachedInputNanoPerMillion: readNano(price.cachedInputPerMillionTokens.amount),
    outputNanoPerMillion: readNano(price.outputPerMillionTokens.amount),
    perCallNano: readNano(price.perCall.amount),
  })
}

/** To two significant digits, as a person would choose it. */
function roundUp(nano: bigint): string {
  const step = 10n ** BigInt(Math.max(0, nano.toString().length - 2))
  return formatNano(((nano + step - 1n) / step) * step)
}
