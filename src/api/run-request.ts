import { startable, type AgentManifest } from '#contracts/agents.ts'
import { Problem, type ProblemCode } from '#contracts/codes.ts'
import { getCorpus } from '#db/corpus.ts'
import type { Scope } from '#db/database.ts'
import type { Database } from '#db/schema.ts'
import type { Kysely } from 'kysely'
import { z } from 'zod'
import { isId, notFound } from './access.ts'
import { checkDowngrade } from './downgrade-check.ts'
import { checkMoneyPath, type AskedRun } from './money-path.ts'
import { checkRowAsk } from './row-ask.ts'
import { problemOf } from './validation.ts'

/** Checks a run before any money moves: everything that would stop it later is refused now, with its reason. */
export type RunCheck = (db: Kysely<Database>, scope: Scope, asked: AskedRun) => Promise<CheckedRun>

/** What a run may be refused for before it begins. */
export const START_PROBLEMS: readonly ProblemCode[] = [
  'invalid_amount',
  'unknown_agent',
  'unknown_model',
  'no_price',
  'no_route',
  'no_quote',
  'route_not_allowed',
  'downgrade_not_cheaper',
  'not_found',
  'wallet_short',
  'debt_outstanding',
  'limit_short',
]

export interface CheckedRun {
  /** With the defaults of the agent's schema filled in. */
  readonly input: unknown
}

/** @throws when an agent's schema is none: at the start of the process, not at the first run */
export function makeRunCheck(agents: readonly AgentManifest[]): RunCheck {
  const known = new Map(
    startable(agents).map((agent) => [agent.name, { agent, schema: z.fromJSONSchema({ ...agent.input }) }]),
  )
  return async (db, scope, asked) => {
    const { request } = asked
    const { agent, schema } = known.get(request.agent) ?? {}
    if (!agent || !schema) {
      const names = [...known.keys()].join(', ')
      throw new Problem('unknown_agent', `There is no agent ${request.agent}.`, { remedy: `Agents: ${names}.` })
    }
    const checked = schema.safeParse(request.input)
    if (!checked.success) throw problemOf(checked.error.issues, 'input')
    await checkMoneyPath(db, scope, asked)
    await checkDowngrade(db, scope, asked, modelsOf(agent, { model: request.model, input: checked.data }))
    await checkCorpus(db, scope, checked.data)
    await checkRowAsk(db, scope, checked.data)
    return { input: checked.data }
  }
}

/** The model of the run, and those that its agent names besides. */
function modelsOf({ plan }: AgentManifest, { model, input }: { readonly model: string; readonly input: unknown }) {
  return [...new Set([model, ...(plan?.(input) ?? []).flatMap((step) => step.model ?? [])])]
}

/** By convention an agent that reads documents takes the id of a corpus as `corpusId`. */
async function checkCorpus(db: Kysely<Database>, scope: Scope, input: unknown): Promise<void> {
  if (typeof input !== 'object' || input === null || !('corpusId' in input)) return
  const { corpusId } = input
  if (typeof corpusId !== 'string') return
  if (!isId(corpusId) || !(await getCorpus(db, scope, corpusId))) throw notFound('corpus', corpusId)
}
