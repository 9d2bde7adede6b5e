import type { KeyHolder } from '#db/api-key.ts'
import { payAll } from '#calls/plan.ts'
import type { CallRequest } from '#calls/call.ts'
import type { Engine } from '#calls/engine.ts'
import type { CatalogModel } from '#contracts/catalog.ts'
import { standingEnvelope, standingPocket } from '#db/envelope.ts'
import type { Scope } from '#db/database.ts'
import type { RunFacts } from '#db/run.ts'
import type { RouteBounds } from '#domain/route-choice.ts'
import { LRUCache } from 'lru-cache'
import { Refusal } from './refusal.ts'

/** How often a call of a key may be sent again after an attempt that may have been executed. */
const MAY_REPEAT = 1
const MOST_KEYS = 20_000

/** Whose money pays, and what it may be spent on. */
export type Payer = Pick<
  CallRequest,
  'scope' | 'runId' | 'envelopeId' | 'apiKeyId' | 'bounds' | 'mayRepeat' | 'reuse' | 'inputTokensPerCall' | 'tight'
>

/** A key of a project, or of one of its external runs: what may ask here. */
export type ProjectCaller = KeyHolder & {
  readonly projectId: string
  /** What its calls have to keep to. */
  readonly bounds: readonly RouteBounds[]
}

export interface Payers {
  /** The run of a key, or else its own envelope, with a pocket for each kind of money that the model is sold for. */
  of(caller: ProjectCaller, model: CatalogModel): Promise<Payer>
}

/** @param engine the process's one call engine */
export function createPayers(engine: Engine): Payers {
  const { db, shelf } = engine
  const envelopes = new LRUCache<string, string>({ max: MOST_KEYS })

  async function envelopeOf(scope: Scope, keyId: string): Promise<string> {
    const known = envelopes.get(keyId)
    if (known !== undefined) return known
    const found = await standingEnvelope(db, scope, keyId)
    if (!found.ok) throw noEnvelope(found.reason)
    envelopes.set(keyId, found.envelopeId)
    return found.envelopeId
  }

  return {
    async of({ projectId, keyId, bounds, run }, model) {
      if (run) return payerOfRun(await shelf.run(run.id))
      const scope = { projectId }
      const envelopeId = await envelopeOf(scope, keyId)
      const pockets = await shelf.pockets(scope, envelopeId, (each) => payAll(each, model))
      if (!payAll(pockets, model)) await makePockets(engine, scope, { keyId, envelopeId, model })
      return {
        scope,
        runId: null,
        envelopeId,
        apiKeyId: keyId,
        bounds,
        mayRepeat: MAY_REPEAT,
      }
    },
  }
}

function payerOfRun(facts: RunFacts): Payer {
  const { scope, runId, envelopeId, apiKeyId, bounds, mayRepeat, inputTokensPerCall, tight } = facts
  return { scope, runId, envelopeId, apiKeyId, bounds, mayRepeat, inputTokensPerCall, tight }
}

/** They are made empty, and filled from the wallet as calls need it. */
async function makePockets(
  { db, shelf }: Engine,
  scope: Scope,
  { keyId, envelopeId, model }: { readonly keyId: string; readonly envelopeId: string; readonly model: CatalogModel },
): Promise<void> {
  for (const { balanceClass, currency } of model.routes) {
    const made = await standingPocket(db, scope, { keyId, balanceClass, currency })
    if (!made.ok && made.reason !== 'wrong_currency') throw noEnvelope(made.reason)
  }
  shelf.forgetPockets(scope, envelopeId)
}

function noEnvelope(reason: 'unknown_key' | 'revoked_key' | 'no_wallet'): Refusal {
  return reason === 'no_wallet'
    ? new Refusal('insufficient_funds', 'The project has no wallet.', { remedy: 'An operator makes a deposit first.' })
    : new Refusal('invalid_api_key', 'This API key is unknown or revoked.')
}
