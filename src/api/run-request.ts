import type { AgentManifest } from '#contracts/agents.ts'
import type { RunRequest } from '#contracts/api-run.ts'
import type { Route } from '#contracts/catalog.ts'
import { Problem } from '#contracts/codes.ts'
import { sellPriceOf } from '#calls/sell.ts'
import { newestCatalog } from '#db/catalog.ts'
import { getCorpus } from '#db/corpus.ts'
import type { Scope } from '#db/database.ts'
import type { Database } from '#db/schema.ts'
import type { Kysely } from 'kysely'
import { z } from 'zod'
import { isId, notFound } from './access.ts'
import { problemOf } from './validation.ts'

/** Checks a run before any money moves: everything that would stop it later is refused now, with its reason. */
export type RunCheck = (db: Kysely<Database>, scope: Scope, request: RunRequest) => Promise<CheckedRun>

export interface CheckedRun {
  /** With the defaults of the agent's schema filled in. */
  readonly input: unknown
}

/** @throws when an agent's schema is none: at the start of the process, not at the first run */
export function makeRunCheck(agents: readonly AgentManifest[]): RunCheck {
  const inputs = new Map(agents.map((agent) => [agent.name, z.fromJSONSchema({ ...agent.input })]))
  return async (db, scope, request) => {
    const schema = inputs.get(request.agent)
    if (!schema) {
      const known = [...inputs.keys()].join(', ')
      throw new Problem('unknown_agent', `There is no agent ${request.agent}.`, { remedy: `Agents: ${known}.` })
    }
    const checked = schema.safeParse(request.input)
    if (!checked.success) throw problemOf(checked.error.issues, 'input')
    await checkMoneyPath(db, scope, request)
    await checkCorpus(db, scope, checked.data)
    return { input: checked.data }
  }
}

/** Whether the model exists, is priced, and can be paid from the pockets that were asked for. */
async function checkMoneyPath(db: Kysely<Database>, scope: Scope, request: RunRequest): Promise<void> {
  const { catalog } = await newestCatalog(db)
  const model = catalog.models.find((each) => each.name === request.model)
  if (!model) {
    throw new Problem('unknown_model', `There is no catalog model ${request.model}.`, {
      remedy: 'The models are listed at /api/v1/models.',
    })
  }
  const payable = model.routes.filter((route) => canPay(request, route))
  const unquoted: Route[] = []
  for (const route of model.routes) {
    const sold = await sellPriceOf(db, scope, route)
    if (!sold.ok && sold.reason === 'no_price') throw unpriced(model.name, route)
    if (!sold.ok) unquoted.push(route)
  }
  if (payable.some((route) => !unquoted.includes(route))) return
  const [route] = payable
  if (route) throw unexchanged(model.name, route)
  const wanted = new Set(model.routes.map((route) => `${route.balanceClass} ${route.currency}`))
  throw new Problem('no_route', `No route of ${model.name} can be paid from these pockets.`, {
    remedy: `Put in one of: ${[...wanted].join(', ')}.`,
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
