import { SEARCH_ATTRIBUTES } from '#contracts/search-attributes.ts'
import type { CommandedRun } from '#db/command.ts'
import { isGrpcServiceError, type Connection } from '@temporalio/client'
import { inTime } from './temporal-call.ts'

/** `INDEXED_VALUE_TYPE_KEYWORD` and gRPC's codes as they stand in their protocols: no package of ours exports them. */
const KEYWORD = 2
const INVALID_ARGUMENT = 3
const ALREADY_EXISTS = 6
const PERMISSION_DENIED = 7
const UNIMPLEMENTED = 12
const UNAUTHENTICATED = 16

const keyword = (name: string) => ({ name, type: 'KEYWORD' }) as const

/** What a run's workflow is found by from its start. */
export function attributesOf({ projectId, agent, model }: CommandedRun) {
  return [
    { key: keyword(SEARCH_ATTRIBUTES.project), value: projectId },
    { key: keyword(SEARCH_ATTRIBUTES.agent), value: agent },
    { key: keyword(SEARCH_ATTRIBUTES.model), value: model },
    { key: keyword(SEARCH_ATTRIBUTES.state), value: 'queued' },
  ]
}

/**
 * Makes the search attributes that the namespace lacks. Safe to repeat, and at the same time from several processes.
 *
 * @throws when Temporal is away, or the permission is missing
 */
export async function ensureSearchAttributes({ connection, namespace }: ServerOf): Promise<void> {
  const { customAttributes } = await inTime(connection, () =>
    connection.operatorService.listSearchAttributes({ namespace }),
  )
  const missing = Object.values(SEARCH_ATTRIBUTES).filter((name) => !Object.hasOwn(customAttributes ?? {}, name))
  if (missing.length === 0) return
  const searchAttributes = Object.fromEntries(missing.map((name) => [name, KEYWORD]))
  try {
    await inTime(connection, () => connection.operatorService.addSearchAttributes({ namespace, searchAttributes }))
  } catch (error) {
    if (codeOf(error) !== ALREADY_EXISTS) throw error
  }
}

interface ServerOf {
  readonly connection: Connection
  readonly namespace: string
}

/** Whether a start was refused because the server does not know (yet) what the run should be found by. */
export function isUnknownAttribute(error: unknown): boolean {
  return codeOf(error) === INVALID_ARGUMENT && /search attribute/i.test(messageOf(error))
}

/** Whether this process may not make them, and need not try again. */
export function isForbidden(error: unknown): boolean {
  const code = codeOf(error)
  return code === PERMISSION_DENIED || code === UNIMPLEMENTED || code === UNAUTHENTICATED
}

function codeOf(error: unknown): number | undefined {
  const cause = error instanceof Error && error.cause !== undefined ? error.cause : error
  return isGrpcServiceError(cause) ? cause.code : undefined
}

function messageOf(error: unknown): string {
  const cause = error instanceof Error && error.cause !== undefined ? error.cause : error
  return isGrpcServiceError(cause) ? cause.details : String(error)
}
