import type { AgentManifest } from '#contracts/agents.ts'
import * as agents from './index.ts'

/** Every agent as data: read by whoever must know agents without running them. Importable outside Temporal's sandbox. */
export const manifests: readonly AgentManifest[] = Object.values(agents).map((agent) => agent.manifest)
