import { fileURLToPath } from 'node:url'
import { dataFolder } from '#local/cache.ts'
import { readStackState, type StackState } from '#local/stack-state.ts'
import { z } from 'zod'

const CHECKOUT = fileURLToPath(new URL('../../', import.meta.url))

const stateSchema = z.object({
  pid: z.int(),
  apiUrl: z.url(),
  docsUrl: z.url(),
  temporalUiUrl: z.url().nullable(),
  databaseUrl: z.string(),
  operatorKey: z.string(),
}) satisfies z.ZodType<StackState>

/** The stack that `purser up` or the demo runs for this checkout, if there is one. */
export async function findStack(env: NodeJS.ProcessEnv): Promise<StackState | undefined> {
  const state = await readStackState(stackFolder(env))
  return state === undefined ? undefined : stateSchema.parse(state)
}

/** Where the stack of this checkout keeps its data. */
export function stackFolder(env: NodeJS.ProcessEnv): string {
  return dataFolder(env, CHECKOUT)
}
