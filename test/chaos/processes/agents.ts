export { map } from '#workflows/map.ts'
export { research } from '#workflows/research.ts'
export { family } from '../../e2e/agents/family.ts'
export { steps } from '../../e2e/agents/steps.ts'
