import type { AgentManifest } from '#contracts/agents.ts'
import type { RunRequest } from '#contracts/api-run.ts'
import type { CatalogModel, Route } from '#contracts/catalog.ts'
import { Problem } from '#contracts/codes.ts'
import { constraintsOf } from '#contracts/constraints.ts'
import { constraintsOfKey } from '#db/api-key.ts'
import { sellPriceOf, type SellPriceAnswer } from '#calls/sell.ts'
import { newestCatalog } from '#db/catalog.ts'
import { getCorpus } from '#db/corpus.ts'
import { getDataset } from '#db/dataset.ts'
import type { Scope } from '#db/database.ts'
import type { Database } from '#db/schema.ts'
import type { Prices } from '#domain/pricing.ts'
import { rankRoutes, type RankedRoutes, type RouteNeeds, type SkipReason } from '#domain/route-choice.ts'
import type { Kysely } from 'kysely'
import { z } from 'zod'
import { isId, notFound } from './access.ts'
import { checkRowAsk } from './row-ask.ts'
import { problemOf } from './validation.ts'

/** Checks a run before any money moves: everything that would stop it later is refused now, with its reason. */
export type RunCheck = (db: Kysely<Database>, scope: Scope, asked: AskedRun) => Promise<CheckedRun>

interface AskedRun {
  readonly request: RunRequest
  /** Whose constraints bind it too. */
  readonly keyId: string
}

export interface CheckedRun {
  /** With the defaults of the agent's schema filled in. */
  readonly input: unknown
}

/** @throws when an agent's schema is none: at the start of the process, not at the first run */
export function makeRunCheck(agents: readonly AgentManifest[]): RunCheck {
  const inputs = new Map(agents.map((agent) => [agent.name, z.fromJSONSchema({ ...agent.input })]))
  return async (db, scope, asked) => {
    const { request } = asked
    const schema = inputs.get(request.agent)
    if (!schema) {
      const known = [...inputs.keys()].join(', ')
      throw new Problem('unknown_agent', `There is no agent ${request.agent}.`, { remedy: `Agents: ${known}.` })
    }
    const checked = schema.safeParse(request.input)
    if (!checked.success) throw problemOf(checked.error.issues, 'input')
    await checkMoneyPath(db, scope, asked)
    await checkCorpus(db, scope, checked.data)
    await checkDataset(db, scope, checked.data)
    return { input: checked.data }
  }
}

/** Whether the model exists, is priced, may be used, and can be paid from the pockets that were asked for. */
async function checkMoneyPath(db: Kysely<Database>, scope: Scope, { request, keyId }: AskedRun): Promise<void> {
  const { catalog } = await newestCatalog(db)
  const model = catalog.models.find((each) => each.name === request.model)
  if (!model) {
    throw new Problem('unknown_model', `There is no catalog model ${request.model}.`, {
      remedy: 'The models are listed at /api/v1/models.',
    })
  }
  const sold = new Map<Route, SellPriceAnswer>()
  for (const route of model.routes) sold.set(route, await sellPriceOf(db, scope, route))
  const { candidates, skipped } = rankRoutes(model, {
    needs: PLAIN_CHAT,
    bounds: constraintsOf(request.constraints, await constraintsOfKey(db, scope, keyId)),
    draw: 0,
    factsOf: (route) => ({
      hasProvider: true, // which ones there are is known to the workers
      hasPocket: canPay(request, route),
      prices: pricesOf(sold.get(route)),
      leastInputTokens: 0,
      mostInputTokens: 0,
    }),
  })
  const withoutPrice = model.routes.find(({ name }) => reasonOf(skipped, name) === 'no_price')
  if (withoutPrice) throw unpriced(model.name, withoutPrice)
  const withoutQuote = model.routes.find(({ name }) => reasonOf(skipped, name) === 'no_quote')
  if (candidates.length === 0 && withoutQuote) throw unexchanged(model.name, withoutQuote)
  if (candidates.length === 0) throw withoutRoute(model, skipped)
}

const PLAIN_CHAT: RouteNeeds = { kind: 'chat', tools: false, jsonSchema: false, vision: false, streaming: false }

function pricesOf(sold: SellPriceAnswer | undefined): Prices | 'no_price' | 'no_quote' {
  if (!sold) return 'no_price'
  return sold.ok ? sold.price.prices : sold.reason
}

type Skipped = RankedRoutes<Route>['skipped']

function reasonOf(skipped: Skipped, route: string): SkipReason | undefined {
  return skipped.find((each) => each.route === route)?.reason
}

/** Where money would open a route that may be used, money is what is missing. */
function withoutRoute(model: CatalogModel, skipped: Skipped): Problem {
  const payable = model.routes.filter(({ name }) => reasonOf(skipped, name) === 'no_pocket')
  const extra = { skipped }
  if (payable.length > 0) {
    const wanted = new Set(payable.map((route) => `${route.balanceClass} ${route.currency}`))
    return new Problem('no_route', `No route of ${model.name} can be paid from these pockets.`, {
      remedy: `Put in one of: ${[...wanted].join(', ')}.`,
      extra,
    })
  }
  const reasons = skipped.map(({ route, reason }) => `${route}: ${reason}`).join(', ')
  return new Problem('route_not_allowed', `No route of ${model.name} may serve this run (${reasons}).`, {
    remedy: 'Ask for another model, or loosen the constraints of the run or of its key.',
    extra,
  })
}

function unpriced(model: string, { name, provider, upstreamModel, currency, costCurrency = currency }: Route): Problem {
  return new Problem('no_price', `The route ${name} of ${model} has no price, and nothing runs unpriced.`, {
    remedy: `Give ${provider} ${upstreamModel} a price in ${costCurrency}, or take the route out of the catalog.`,
    extra: { route: name },
  })
}

function unexchanged(model: string, { name, currency }: Route): Problem {
  return new Problem('no_quote', `The route ${name} of ${model} has no price in ${currency} at the moment.`, {
    remedy: 'An operator has to store an exchange rate with POST /api/v1/quotes.',
    extra: { route: name },
  })
}

function canPay(request: RunRequest, route: Route): boolean {
  return request.envelope.pockets.some(
    ({ balanceClass, amount, exchangeTo }) =>
      balanceClass === route.balanceClass && (exchangeTo ?? amount.currency) === route.currency,
  )
}

/** By convention an agent that reads documents takes the id of a corpus as `corpusId`. */
async function checkCorpus(db: Kysely<Database>, scope: Scope, input: unknown): Promise<void> {
  if (typeof input !== 'object' || input === null || !('corpusId' in input)) return
  const { corpusId } = input
  if (typeof corpusId !== 'string') return
  if (!isId(corpusId) || !(await getCorpus(db, scope, corpusId))) throw notFound('corpus', corpusId)
}

/** And one that asks about rows takes the id of a dataset as `datasetId`, its columns standing in `prompt` and `system`. */
async function checkDataset(db: Kysely<Database>, scope: Scope, input: unknown): Promise<void> {
  if (typeof input !== 'object' || input === null || !('datasetId' in input)) return
  const { datasetId } = input
  if (typeof datasetId !== 'string') return
  const dataset = isId(datasetId) ? await getDataset(db, scope, datasetId) : undefined
  if (!dataset) throw notFound('dataset', datasetId)
  checkRowAsk(dataset, input)
}
