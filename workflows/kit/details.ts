import type { ChatRequest } from '#contracts/activities.ts'
import { setCurrentDetails } from '@temporalio/workflow'
import type { Answered } from './chat.ts'

/** What people see of the run in Temporal's own page, beside its events: no part of its history. */
export function showCall({ path, model }: ChatRequest, { callId, route, held }: Answered): void {
  const served = route === undefined ? '' : `, served by **${route}**`
  const money = held === undefined ? '' : `, ${held} held`
  setCurrentDetails(`Last call: \`${path}\` · ${model}${served}${money} · call ${callId}`)
}
